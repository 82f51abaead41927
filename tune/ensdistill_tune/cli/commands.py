"""The commands that run, report and export studies; each returns its exit code.

Importing this module does not import PyTorch, so that errors in the settings are printed at once.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markdown import Markdown

from ensdistill.errors import ConfigError, ConfigIssue, DataError
from ensdistill.evaluation.tables import file_table, price_table
from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.progress_bar import console, show_warnings
from ensdistill.runtime.text import counted
from ensdistill_tune import api
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.credentials import give_credentials
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_location import StudyLocation
from ensdistill_tune.tracking import server

if TYPE_CHECKING:
    from ensdistill.export.exporter import ExportResult
    from ensdistill_tune.student_export import ExportItem


def launch(options: argparse.Namespace) -> int:
    """Runs a new study."""
    results = api.launch(
        load_study(options.file, [*options.set, *_tracking(options)]),
        name=options.name,
        studies_dir=options.studies_dir,
        executor=options.executor,
        progress=console(stderr=options.json),
        device=options.device,
        default_name=Path(options.file).stem,
    )
    return _ended(results, options.json)


def resume(options: argparse.Namespace) -> int:
    """Resumes a study."""
    results = api.resume(
        Path(options.studies_dir) / options.study,
        overrides=[*options.set, *_tracking(options)],
        reevaluate_test=options.reevaluate_test,
        executor=options.executor,
        progress=console(stderr=options.json),
        device=options.device,
    )
    return _ended(results, options.json)


def _tracking(options: argparse.Namespace) -> list[str]:
    return [f"tracking.uri={json.dumps(options.tracking_uri)}"] if options.tracking_uri else []


def _place(options: argparse.Namespace) -> StudyLocation:
    """Returns the location of the requested study, and keeps the credentials of `--tracking-uri` in this process."""
    place = StudyLocation(Path(options.studies_dir), options.study)
    if options.tracking_uri:
        give_credentials(api.stored_uri(place), options.tracking_uri)
    return place


def _ended(results: StudyResults, as_json: bool) -> int:
    if as_json:
        print(json.dumps(results.summary))
    return {"finished": 0, "timed_out": 0, "failed": 1}.get(results.state, 130)


def sync(options: argparse.Namespace) -> int:
    """Sends pending events to MLflow."""
    left, why, refused = api.sync(_place(options))
    if left:
        again = command_line("ensdistill-tune", "sync", options.study, studies=options.studies_dir)
        pending = f"{counted(left, 'event')} still pending for MLflow ({why or 'no answer'})"
        raise DataError(f"{pending}; run `{again}` later")
    out = f", except for {counted(len(refused), 'refused entry')}: {refused[0]}" if refused else ""
    print(f"MLflow is up to date{out}")
    return 0


def report(options: argparse.Namespace) -> int:
    """Writes the report of a study."""
    files, lead, pending = api.report(_place(options))
    screen = console()
    screen.print(Markdown(lead))
    screen.print(f"\nreport: {files[0]}   (as Markdown: {files[1].name})", soft_wrap=True)
    if pending:
        screen.print(f"the report is still pending for MLflow ({pending})", soft_wrap=True)
    return 0


def export(options: argparse.Namespace) -> int:
    """Exports students of a study."""
    if options.champion and not options.register:
        raise ConfigError("--champion: requires --register NAME, the name of the model in the registry")
    if options.champion and options.trial is not None:
        raise ConfigError("--champion: only the winner can be the champion, got --trial. Omit --trial.")
    # Imported here, because it imports torch.
    from ensdistill_tune.student_export import WINNER, ExportRequest, export_students

    screen, exports = console(stderr=options.json), []

    def exported(choice: ExportItem, done: ExportResult, version: int | None) -> None:
        exports.append(asdict(done) | {"folder": str(done.folder), "trial": choice.trial.number, "version": version})
        screen.print(f"\n{choice.folder}: trial {choice.trial.name}", soft_wrap=True)
        show_warnings(map(ConfigIssue.from_row, done.warnings))
        screen.print(file_table(done.sizes, done.differences), price_table(done.prices))
        lines = [done.in_words(), f"export: {done.folder}"]
        champion = ", alias champion" if options.champion and choice.folder == WINNER else ""
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
    export_students(Path(options.studies_dir) / options.study, wanted, exported)
    if options.json:
        print(json.dumps(exports, allow_nan=False))
    return 0


def ui(options: argparse.Namespace) -> int:
    """Serves the MLflow pages."""
    where = Path(options.studies_dir)
    return server.ui(where, options.study, options.tracking_uri, options.port, show=options.open)
