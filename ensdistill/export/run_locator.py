"""Locates the run that a command line specifies by folder, settings file or preset."""

import argparse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ensdistill.config import Config, content_hash, load_config, presets
from ensdistill.data import load_data
from ensdistill.errors import DataError
from ensdistill.export.student_file import CONFIG_FILE, DistillationRun, load_run
from ensdistill.runtime.command_line import Option, command_line
from ensdistill.runtime.devices import pick_device
from ensdistill.runtime.weights import STUDENT_FILE, read_metadata
from ensdistill.training.teachers import find_ensemble


@dataclass(frozen=True)
class LocatedRun:
    """A run and its location.

    Attributes:
        run: The run.
        student: Weights file of the student.
        alone: Message about the metrics that are missing without the ensemble; empty if the ensemble is available.
    """

    run: DistillationRun
    student: Path
    alone: str


def locate_run(options: argparse.Namespace) -> LocatedRun:
    """Returns the run that a command line specifies; no network is trained.

    Args:
        options: Parsed options `config`, `set`, `device`, `student` and `studies_dir`.

    Raises:
        DataError: The student does not exist yet, or was trained with other settings or images.
    """
    options.config = _settings_in(options.config)
    config = load_config(options.config, options.set)
    data = load_data(config.data, options.studies_dir).to(pick_device(options.device))
    path = Path(options.student) if options.student else _student_beside(options, config, data.identity)
    found = find_ensemble(config, data, Path(options.studies_dir) / "teachers")
    run = load_run(config, data, path, found)
    alone = ""
    if found is None:
        alone = f"dee, top1_agreement and cost require the teachers: `{next_command('teachers', options)}` trains them"
    elif run.ensemble is None:
        alone = "dee, top1_agreement and cost are missing, because this student was trained with other teachers"
    return LocatedRun(run, path, alone)


def default_folder(studies: str | Path, config: Config, data: str = "") -> Path:
    """Returns the default folder of a run: `<studies>/runs/<hash of the settings>`.

    The hash does not depend on paths. If the folder contains a student that was trained on other images, a hash of the
    images is appended to the folder name.

    Args:
        studies: Folder that contains all results.
        config: Settings of the run.
        data: Identity of the images; if empty, the folder without a hash of the images is returned.
    """
    first = Path(studies) / "runs" / config.hash
    if not data or not (first / STUDENT_FILE).is_file():
        return first
    with suppress(DataError):
        if read_metadata(first / STUDENT_FILE).get("data") == data:
            return first
    return first.with_name(f"{first.name}-{content_hash(data)[:8]}")


def next_command(name: str, options: argparse.Namespace, *more: Option) -> str:
    """Returns the command line that runs another command with the same settings and results folder."""
    changes = [("--set", change) for change in options.set]
    return command_line("ensdistill", name, options.config, options=[*changes, *more], studies=options.studies_dir)


def _settings_in(name: str) -> str:
    """Returns the settings file in the folder of a run or export; returns any other name unchanged."""
    if name in presets() or not Path(name).is_dir():
        return name
    file = Path(name, CONFIG_FILE)
    if file.is_file():
        return str(file)
    raise DataError(f"{name}: no {CONFIG_FILE} in this folder; give the folder of a run or an export")


def _student_beside(options: argparse.Namespace, config: Config, data: str) -> Path:
    """Returns the weights file next to the settings file or in the default folder of the run."""
    places = [Path(options.config).parent / STUDENT_FILE] if Path(options.config).is_file() else []
    places += [default_folder(options.studies_dir, config, identity) / STUDENT_FILE for identity in (data, "")]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"{places[-1]}: the student does not exist yet; run `{next_command('distill', options)}` or give --student FILE"
    )
