"""The commands that run, report and export studies: each takes its options and returns its exit code."""

import argparse
import contextlib
import itertools
import json
import re
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from ensdistill.errors import ConfigError, ConfigIssue, DataError
from ensdistill.evaluation.tables import file_table, price_table
from ensdistill.export.exporter import ExportResult
from ensdistill.pipeline import show_warnings
from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.files import ensure_writable_dir
from ensdistill.runtime.progress_bar import console
from ensdistill.runtime.text import counted
from ensdistill_tune import api
from ensdistill_tune.cli.overview import resume_command
from ensdistill_tune.credentials import give_credentials
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.student_export import WINNER, ExportItem, ExportRequest, export_students
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_location import StudyLocation
from ensdistill_tune.tracking import server

RESERVED = ("teachers", "runs", "artifacts", "bench", "mlflow.db")  # what lies beside the studies


def launch(options: argparse.Namespace) -> int:
    """Runs a new study."""
    study = load_study(options.file, [*options.set, *_tracking(options)])
    studies = ensure_writable_dir(options.studies_dir)
    screen = console(stderr=options.json)
    name = _claim(studies, Path(options.file).stem, options.name, screen)
    screen.print(
        f"study {name}: {counted(study.budget.trials, 'trial')}, baselines {', '.join(study.baselines) or 'none'}"
    )
    place = StudyLocation(studies, name, options.device)
    return _ended(api.launch(study, place, screen, executor=options.executor), place.home, options.json)


def resume(options: argparse.Namespace) -> int:
    """Continues a study."""
    place = StudyLocation(Path(options.studies_dir), options.study, options.device)
    screen = console(stderr=options.json)
    changes = [*options.set, *_tracking(options)]
    ended = api.resume(place, changes, screen, reevaluate_test=options.reevaluate_test, executor=options.executor)
    return _ended(ended, place.home, options.json)


def _tracking(options: argparse.Namespace) -> list[str]:
    return [f"tracking.uri={json.dumps(options.tracking_uri)}"] if options.tracking_uri else []


def _place(options: argparse.Namespace) -> StudyLocation:
    """The study that a command names; --tracking-uri gives the credentials of its store to this process."""
    place = StudyLocation(Path(options.studies_dir), options.study)
    if options.tracking_uri:
        give_credentials(api.stored_uri(place), options.tracking_uri)
    return place


def _ended(ended: str, home: Path, as_json: bool) -> int:
    if as_json:
        print(json.dumps(StudyDirectory(home).read_summary()))
    return {"finished": 0, "timed_out": 0, "failed": 1}.get(ended, 130)


def sync(options: argparse.Namespace) -> int:
    """Sends pending events to MLflow."""
    left, why, refused = api.sync(_place(options))
    if left:
        again = command_line("ensdistill-tune", "sync", options.study, studies=options.studies_dir)
        raise DataError(f"{left} events are still pending for MLflow ({why or 'no answer'}); run `{again}` again later")
    print("MLflow has everything" + (f", but for {len(refused)} entries it refused: {refused[0]}" if refused else ""))
    return 0


def report(options: argparse.Namespace) -> int:
    """Writes the report of a study."""
    files, lead, untold = api.report(_place(options))
    screen = console()
    screen.print(Markdown(lead))
    screen.print(f"\nthe page: {files[0]}   (the same in Markdown: {files[1].name})", soft_wrap=True)
    if untold:
        screen.print(f"MLflow does not have it ({untold})", soft_wrap=True)
    return 0


def export(options: argparse.Namespace) -> int:
    """Exports students of a study."""
    if options.champion and not options.register:
        raise ConfigError("--champion: is an alias in the model registry; give the name there with --register")
    if options.champion and options.trial is not None:
        raise ConfigError("--champion: is the alias of the winner; leave out --trial")
    screen, exports = console(stderr=options.json), []

    def tell(choice: ExportItem, done: ExportResult, version: int | None) -> None:
        exports.append(asdict(done) | {"folder": str(done.folder), "trial": choice.trial.number, "version": version})
        screen.print(f"\n{choice.folder}: trial {choice.trial.name}", soft_wrap=True)
        show_warnings(map(ConfigIssue.from_row, done.warnings))
        screen.print(file_table(done.sizes, done.differences), price_table(done.prices))
        lines = [done.in_words(), f"export: {done.folder}"]
        champion = ", its champion" if options.champion and choice.folder == WINNER else ""
        lines += [f"registered: {options.register}, version {version}{champion}"] if version else []
        screen.print("\n".join(lines), soft_wrap=True)

    if options.tracking_uri:
        _place(options)
    wanted = ExportRequest(
        options.top,
        options.trial,
        Path(options.out) if options.out else None,
        options.device,
        options.license,
        options.formats,
        options.register,
        options.champion,
    )
    export_students(Path(options.studies_dir) / options.study, wanted, tell)
    if options.json:
        print(json.dumps(exports, allow_nan=False))
    return 0


def _claim(studies: Path, default: str, chosen: str | None, screen: Console) -> str:
    """Makes the folder of a new study and returns its name; nothing that is there is ever overwritten."""
    name = default if chosen is None else chosen
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in RESERVED:
        rule = f"a study's name is letters, digits, . _ - and none of {', '.join(RESERVED)}"
        raise ConfigError(f"--name {name}: {rule}" if chosen is not None else f"{name}: {rule}; give one with --name")
    for attempt in itertools.count(1):
        candidate = name if attempt == 1 else f"{name}-{attempt}"
        try:
            (studies / candidate).mkdir()
        except FileExistsError:
            if not _begun(studies / candidate):
                return candidate
            if chosen is not None:
                state, more = _state(studies / name), ("--set", "budget.trials=N")
                what = (
                    f"`{resume_command(studies, name, more)}` extends it"
                    if state == "finished"
                    else f"`{resume_command(studies, name)}` goes on with it"
                )
                raise ConfigError(
                    f"--name {name}: {studies / name} is there already ({state}); {what}, or choose another name"
                ) from None
            if attempt == 1 and _state(studies / name) not in ("finished", "failed"):
                screen.print(
                    f"note: {name} is there, {_state(studies / name)}; `{resume_command(studies, name)}` goes on with "
                    "it. This is a new study.",
                    soft_wrap=True,
                )
        except OSError as error:
            raise DataError(f"{studies}: cannot be written ({error.strerror})") from error
        else:
            return candidate
    raise AssertionError


def _begun(home: Path) -> bool:
    """Whether a folder is that of a study; one that came to nothing may hold the file of a lock."""
    return not home.is_dir() or any(file.name != ".lock" for file in home.iterdir())


def _state(home: Path) -> str:
    with contextlib.suppress(DataError):
        return str(StudyDirectory(home).read_summary()["state"])
    return "no study"


def ui(options: argparse.Namespace) -> int:
    """Serves MLflow's pages."""
    where = Path(options.studies_dir)
    return server.ui(where, options.study, options.tracking_uri, options.port, show=options.open)
