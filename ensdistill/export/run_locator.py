"""The run that a command line names, by its folder, its settings file or a preset."""

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
    """A run, and where it lies."""

    run: DistillationRun
    student: Path  # its file
    alone: str  # why there is no ensemble beside it; empty if there is


def locate_run(options: argparse.Namespace) -> LocatedRun:
    """The run of options.config, changed by options.set, on options.device; trains nothing.

    Raises DataError if there is no student yet, or one of other settings or images.
    """
    options.config = _settings_in(options.config)
    config = load_config(options.config, options.set)
    data = load_data(config.data).to(pick_device(options.device))
    path = Path(options.student) if options.student else _student_beside(options, config, data.identity)
    found = find_ensemble(config, data, Path(options.studies_dir) / "teachers")
    run = load_run(config, data, path, found)
    alone = ""
    if found is None:
        alone = f"dee, top1_agreement and cost need the teachers: `{next_command('teachers', options)}` trains them"
    elif run.ensemble is None:
        alone = (
            "no dee, top1_agreement and cost: the teachers that are there are not those that this student learnt from"
        )
    return LocatedRun(run, path, alone)


def default_folder(studies: str | Path, config: Config, data: str = "") -> Path:
    """The folder of a run that is given none: `<studies>/runs/<hash of the settings>`.

    Paths are no part of that hash, so a hash of the images follows where others were run with the same settings before.

    Args:
        studies: The folder of all results.
        config: The settings of the run.
        data: The identity of its images; if it is not given, the folder of the first run is returned.
    """
    first = Path(studies) / "runs" / config.hash
    if not data or not (first / STUDENT_FILE).is_file():
        return first
    with suppress(DataError):
        if read_metadata(first / STUDENT_FILE).get("data") == data:
            return first
    return first.with_name(f"{first.name}-{content_hash(data)[:8]}")


def next_command(name: str, options: argparse.Namespace, *more: Option) -> str:
    """Another command on the same settings and the same folder of results, to be typed as it is."""
    changes = [("--set", change) for change in options.set]
    return command_line("ensdistill", name, options.config, options=[*changes, *more], studies=options.studies_dir)


def _settings_in(name: str) -> str:
    """The settings file in the folder of a run or an export; whatever names no folder stays as it is."""
    if name in presets() or not Path(name).is_dir():
        return name
    file = Path(name, CONFIG_FILE)
    if file.is_file():
        return str(file)
    raise DataError(f"{name}: no {CONFIG_FILE} in this folder, so it is not that of a run")


def _student_beside(options: argparse.Namespace, config: Config, data: str) -> Path:
    places = [Path(options.config).parent / STUDENT_FILE] if Path(options.config).is_file() else []
    places += [default_folder(options.studies_dir, config, identity) / STUDENT_FILE for identity in (data, "")]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"{places[-1]}: no student there yet; run `{next_command('distill', options)}` or give --student FILE"
    )
