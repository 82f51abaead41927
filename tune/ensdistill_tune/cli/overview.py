"""The commands `check`, `schema` and `status`. They start without importing torch."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.progress_bar import console, show_warnings
from ensdistill.runtime.text import counted
from ensdistill_tune.console.follower import StudyFollower, follow
from ensdistill_tune.console.rendering import StudyPanel
from ensdistill_tune.formatting import fold, short_value
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import trial_of
from ensdistill_tune.search.size import CONTINUOUS, SearchSpaceSize, size_of
from ensdistill_tune.study.claim import resume_command
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.validation import study_warnings


def check(options: argparse.Namespace) -> int:
    """Checks a study file and estimates the cost of the study."""
    study = load_study(options.file, options.set)
    size = size_of(study.search)
    if not options.json:
        _show_study(options.file, study, size)
        if not options.no_estimate:
            print("timing one epoch of each kind of trial (--no-estimate skips this)", file=sys.stderr)
    warnings = study_warnings(study)
    show_warnings(warnings)
    cost, words = None, ""
    if not options.no_estimate:
        from ensdistill_tune.execution.cost_estimate import estimate  # imported here, because it imports torch

        found = list[ConfigIssue]()
        cost, words = estimate(study, Path(options.studies_dir), found.extend)
        show_warnings(found)
        warnings += found
    if options.json:
        rows = [warning.as_row() for warning in warnings]
        figures = {"size": asdict(size), "cost": asdict(cost) if cost else None, "warnings": rows}
        print(json.dumps({"ok": True, "study": study.model_dump(mode="json")} | figures))
    elif words:
        console().print("\n".join(fold(line, 2) for line in words.splitlines()), soft_wrap=True)
    return 0


def _show_study(file: str, study: StudyConfig, size: SearchSpaceSize) -> None:
    table = Table(title=f"{file}: valid", title_justify="left")
    for column in ("setting", "distribution", "values", "when"):
        table.add_column(column, overflow="fold")
    for name, axis in study.search.items():
        when = ", ".join(f"{other} is {short_value(value)}" for other, value in axis.when.items())
        table.add_row(name, axis.kind.replace("_", " "), _range(axis.kind, axis.values), when)
    screen = console()
    screen.print(table)
    baselines = ", ".join(study.baselines) or "(none)"
    trials = f"{counted(study.budget.trials, 'trial')} of at most {counted(study.epochs, 'epoch')}"
    rest = f"searcher {study.searcher.kind}, scheduler {study.scheduler.kind}, objective {study.objective}"
    screen.print(f"{size}\n{fold(f'{trials}, after baselines {baselines}; {rest}', 2)}", soft_wrap=True)


def _range(kind: str, values: list[Any]) -> str:
    return (
        f"{values[0]:g} to {values[1]:g}" if kind in (*CONTINUOUS, "integer") else ", ".join(map(short_value, values))
    )


def schema(options: argparse.Namespace) -> int:
    """Prints the JSON schema of study files."""
    print(json.dumps(StudyConfig.model_json_schema(), indent=2))
    return 0


def status(options: argparse.Namespace) -> int:
    """Prints the state of one study or of all studies."""
    if options.study:
        return _status_of_one(options)
    names = sorted(file.parent.name for file in Path(options.studies_dir).glob("*/study.json"))
    if not names:
        raise DataError(f"{options.studies_dir}: no study in this folder; `ensdistill-tune launch FILE` runs one")
    summaries = [StudyDirectory(Path(options.studies_dir) / name).read_summary() for name in names]
    if options.json:
        print(json.dumps(summaries))
        return 0
    table = Table(title=f"studies in {options.studies_dir}", title_justify="left")
    for column in ("study", "state", "trials", "best", "trial", "seconds"):
        table.add_column(column, overflow="fold")
    for summary in summaries:
        done = ", ".join(f"{count} {state}" for state, count in sorted(summary["counts"].items()))
        best, objective = summary["best"] or {}, summary["study"]["objective"]
        value = f"{objective} {best['metrics'][objective]:.4f}" if best else ""
        trials = f"{done} of {summary['total']}"
        if planned := summary.get("replicates_planned", 0):
            trials += f"; {summary['replicates_done']} of {planned} replicates"
        row = [summary["name"], summary["state"], trials, value, trial_of(best).name if best else ""]
        table.add_row(*row, f"{summary.get('seconds', 0):.0f}")
    console().print(table)
    return 0


def _status_of_one(options: argparse.Namespace) -> int:
    studies, screen = Path(options.studies_dir), console()
    study = StudyFollower(StudyDirectory(studies / options.study), resume_command(studies, options.study))
    if options.json:
        print(json.dumps(study.summary()))
    elif options.no_follow or not screen.is_interactive:
        screen.print(StudyPanel(study.snapshot()))
    else:
        follow(screen, study)
    return 0
