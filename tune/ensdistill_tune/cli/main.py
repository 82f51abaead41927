"""`ensdistill-tune check | launch | resume | status | report | export | sync | ui | schema`: studies."""

import argparse
import contextlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ensdistill.config import Config
from ensdistill.errors import ConfigError, ConfigIssue, DataError
from ensdistill.evaluation.tables import file_table, price_table
from ensdistill.export.exporter import FORMATS, ExportResult
from ensdistill.pipeline import show_warnings
from ensdistill.runtime.boundary import run_command
from ensdistill.runtime.command_line import Option, command_line
from ensdistill.runtime.files import ensure_writable_dir
from ensdistill.runtime.progress_bar import console
from ensdistill.runtime.text import counted
from ensdistill.settings.validation import settings_help
from ensdistill.version import __version__
from ensdistill_tune.console.follower import StudyFollower, follow
from ensdistill_tune.credentials import give_credentials
from ensdistill_tune.execution.cost_estimate import estimate
from ensdistill_tune.formatting import short_value
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import trial_of
from ensdistill_tune.search.size import CONTINUOUS, SearchSpaceSize, size_of
from ensdistill_tune.student_export import WINNER, ExportItem, ExportRequest, export_students
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking.server import ui

if TYPE_CHECKING:
    from ensdistill_tune.session import StudyLocation

RESERVED = ("teachers", "runs", "artifacts", "bench", "mlflow.db")  # what lies beside the studies


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 no trial ran to its end, 2 bad input, 130 interrupted."""

    def work() -> int:
        options = _parser().parse_args(arguments)
        return int(options.command(options))

    return run_command(work)


# --- the commands ----------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    study = load_study(options.file, options.set)
    size = size_of(study.search)
    if not options.json:
        _show_study(options.file, study, size)
        if not options.no_estimate:
            print("timing one epoch of each kind of trial (--no-estimate leaves this out)", file=sys.stderr)
    warnings = list[ConfigIssue]()
    cost, words = (None, "") if options.no_estimate else estimate(study, Path(options.studies_dir), warnings.extend)
    show_warnings(warnings)
    if options.json:
        told = [warning.as_row() for warning in warnings]
        figures = {"size": asdict(size), "cost": asdict(cost) if cost else None, "warnings": told}
        print(json.dumps({"ok": True, "study": study.model_dump(mode="json")} | figures))
    elif words:
        console().print(words, soft_wrap=True)
    return 0


def _show_study(file: str, study: StudyConfig, size: SearchSpaceSize) -> None:
    table = Table(title=f"{file}: no fault found", title_justify="left")
    for column in ("setting", "drawn", "from", "when"):
        table.add_column(column, overflow="fold")
    for name, axis in study.search.items():
        when = ", ".join(f"{other} is {short_value(value)}" for other, value in axis.when.items())
        table.add_row(name, axis.kind.replace("_", " "), _range(axis.kind, axis.values), when)
    screen = console()
    screen.print(table)
    baselines = ", ".join(study.baselines) or "(none)"
    screen.print(
        f"{size}\n{counted(study.budget.trials, 'trial')} of at most {counted(study.epochs, 'epoch')}, "
        f"after baselines {baselines}; "
        f"{study.searcher.kind} suggests, {study.scheduler.kind} stops, {study.objective} decides",
        soft_wrap=True,
    )


def _schema(options: argparse.Namespace) -> int:
    print(json.dumps(StudyConfig.model_json_schema(), indent=2))
    return 0


def _launch(options: argparse.Namespace) -> int:
    from ensdistill_tune.session import (  # here and below: slow imports that quick commands need not wait for
        StudyLocation,
        launch,
    )

    study = load_study(options.file, [*options.set, *_tracking(options)])
    studies = ensure_writable_dir(options.studies_dir)
    screen = console(stderr=options.json)
    name = _claim(studies, Path(options.file).stem, options.name, screen)
    screen.print(
        f"study {name}: {counted(study.budget.trials, 'trial')}, baselines {', '.join(study.baselines) or 'none'}"
    )
    place = StudyLocation(studies, name, options.device)
    return _ended(launch(study, place, screen, executor=options.executor), place.home, options.json)


def _resume(options: argparse.Namespace) -> int:
    from ensdistill_tune.session import StudyLocation, resume

    place = StudyLocation(Path(options.studies_dir), options.study, options.device)
    screen = console(stderr=options.json)
    changes = [*options.set, *_tracking(options)]
    ended = resume(place, changes, screen, reevaluate_test=options.reevaluate_test, executor=options.executor)
    return _ended(ended, place.home, options.json)


def _tracking(options: argparse.Namespace) -> list[str]:
    return [f"tracking.uri={json.dumps(options.tracking_uri)}"] if options.tracking_uri else []


def _place(options: argparse.Namespace) -> "StudyLocation":
    """The study that a command names; --tracking-uri gives the credentials of its store to this process."""
    from ensdistill_tune.session import StudyLocation

    place = StudyLocation(Path(options.studies_dir), options.study)
    if options.tracking_uri:
        give_credentials(place.uri, options.tracking_uri)
    return place


def _ended(ended: str, home: Path, as_json: bool) -> int:
    if as_json:
        print(json.dumps(StudyDirectory(home).read_summary()))
    return {"finished": 0, "timed_out": 0, "failed": 1}.get(ended, 130)


def _sync(options: argparse.Namespace) -> int:
    from ensdistill_tune.session import sync

    left, why, refused = sync(_place(options))
    if left:
        again = command_line("ensdistill-tune", "sync", options.study, studies=options.studies_dir)
        raise DataError(f"{left} events are still pending for MLflow ({why or 'no answer'}); run `{again}` again later")
    print("MLflow has everything" + (f", but for {len(refused)} entries it refused: {refused[0]}" if refused else ""))
    return 0


def _report(options: argparse.Namespace) -> int:
    from rich.markdown import Markdown

    from ensdistill_tune.session import report

    files, lead, untold = report(_place(options))
    screen = console()
    screen.print(Markdown(lead))
    screen.print(f"\nthe page: {files[0]}   (the same in Markdown: {files[1].name})", soft_wrap=True)
    if untold:
        screen.print(f"MLflow does not have it ({untold})", soft_wrap=True)
    return 0


def _export(options: argparse.Namespace) -> int:
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
                    f"`{_resume_command(studies, name, more)}` extends it"
                    if state == "finished"
                    else f"`{_resume_command(studies, name)}` goes on with it"
                )
                raise ConfigError(
                    f"--name {name}: {studies / name} is there already ({state}); {what}, or choose another name"
                ) from None
            if attempt == 1 and _state(studies / name) not in ("finished", "failed"):
                screen.print(
                    f"note: {name} is there, {_state(studies / name)}; `{_resume_command(studies, name)}` goes on with "
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


def _resume_command(studies: Path, name: str, *options: Option) -> str:
    return command_line("ensdistill-tune", "resume", name, options=options, studies=studies)


def _status(options: argparse.Namespace) -> int:
    if options.study:
        return _status_of_one(options)
    names = sorted(file.parent.name for file in Path(options.studies_dir).glob("*/study.json"))
    if not names:
        raise DataError(f"{options.studies_dir}: no study here yet; `ensdistill-tune launch FILE` makes one")
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
            trials += f"; {summary['replicates_done']} of {planned} repeats"
        row = [summary["name"], summary["state"], trials, value, trial_of(best).name if best else ""]
        table.add_row(*row, f"{summary.get('seconds', 0):.0f}")
    console().print(table)
    return 0


def _status_of_one(options: argparse.Namespace) -> int:
    studies, screen = Path(options.studies_dir), console()
    study = StudyFollower(StudyDirectory(studies / options.study), _resume_command(studies, options.study))
    if options.json:
        print(json.dumps(study.summary()))
    elif options.no_follow or not screen.is_interactive:
        screen.print(study.snapshot())
    else:
        follow(screen, study)
    return 0


def _ui(options: argparse.Namespace) -> int:
    return ui(Path(options.studies_dir), options.study, options.tracking_uri, options.port, show=options.open)


# --- what they take --------------------------------------------------------------------------------------------------


def _range(way: str, values: list[Any]) -> str:
    return f"{values[0]:g} to {values[1]:g}" if way in (*CONTINUOUS, "integer") else ", ".join(map(short_value, values))


def study_help() -> str:
    """Every setting of a search space file, then those that can be searched."""
    return "\n\n".join(
        [settings_help(StudyConfig, "search space files:"), settings_help(Config, "settings to search or fix:")]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ensdistill-tune", description="Hyperparameter studies of ensemble distillation."
    )
    parser.add_argument("--version", action="version", version=f"ensdistill {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[argparse.Namespace], int], sentence: str, **more: Any
    ) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        sub = commands.add_parser(name, help=sentence, description=sentence, formatter_class=raw, **more)
        sub.set_defaults(command=command)
        sub.add_argument("--studies-dir", default="studies", metavar="DIR", help="where all results go (studies)")
        return sub

    def takes_file(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("file", metavar="FILE", help="a search space file, such as search_spaces/digits.yaml")
        sub.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="override one of its settings"
        )
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def takes_uri(sub: argparse.ArgumentParser, sentence: str) -> None:
        sub.add_argument("--tracking-uri", metavar="URI", help=sentence)

    look = add("check", _check, "Find every fault of a search space file; say what it will cost.", epilog=study_help())
    takes_file(look)
    look.add_argument("--no-estimate", action="store_true", help="time nothing, read no images")
    start = add("launch", _launch, "Run a study.", epilog=study_help())
    takes_file(start)
    start.add_argument("--name", help="name of the study (the file's name, numbered if it is taken)")
    again = add("resume", _resume, "Go on with a study that was interrupted, or extend one.", epilog=study_help())
    again.add_argument("study", help="its name")
    again.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change budget, confirm, trial or tracking"
    )
    again.add_argument(
        "--reevaluate-test", action="store_true", help="look at the test images a second time if need be"
    )
    again.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    for sub in (start, again):
        takes_uri(sub, "MLflow store or server (sqlite:///<studies>/mlflow.db)")
        sub.add_argument("--device", default="auto", help="where teachers are trained: auto, cpu, cuda, ... (auto)")
        sub.add_argument(
            "--executor",
            choices=("ray", "inline"),
            default="ray",
            help="what runs the trials: ray, or inline for one after the other in this process (ray)",
        )
    late = add("sync", _sync, "Send MLflow what it could not take while a study ran.")
    late.add_argument("study", help="its name")
    takes_uri(late, "the study's store with its credentials, which are not kept")
    page = add("report", _report, "Say what was learnt: one page with figures, made anew, also while a study runs.")
    page.add_argument("study", help="its name")
    takes_uri(page, "the study's store with its credentials, which are not kept")
    away = add("export", _export, "Write the winner as files that run elsewhere: ONNX, torch.export, safetensors.")
    away.add_argument("study", help="its name")
    takes_uri(away, "the study's store with its credentials, which are not kept")
    which = away.add_mutually_exclusive_group()
    which.add_argument("--top", type=int, default=1, metavar="K", help="the best K, a folder each (1)")
    which.add_argument("--trial", type=int, metavar="ID", help="the student of one trial, by its number")
    away.add_argument("--out", metavar="DIR", help="where the folders go (<study>/export)")
    away.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="which files (all)")
    away.add_argument("--license", default="", metavar="SPDX", help="license of the weights, for the model card")
    away.add_argument("--register", metavar="NAME", help="enter it in MLflow's model registry under this name")
    away.add_argument("--champion", action="store_true", help="and give the winner the alias `champion` there")
    away.add_argument("--device", default="auto", help="where it is checked and timed: auto, cpu, cuda, ... (auto)")
    away.add_argument("--json", action="store_true", help="print one JSON value and nothing else")
    add("schema", _schema, "Print the JSON schema of search space files, for editors.")
    status = add("status", _status, "Show how far studies are; follow one while it runs (Ctrl-C stops looking).")
    status.add_argument("study", nargs="?", help="its name (all studies)")
    status.add_argument("--no-follow", action="store_true", help="show how it stands now and do not follow it")
    status.add_argument("--json", action="store_true", help="print one JSON value and nothing else")
    pages = add("ui", _ui, "Serve MLflow's pages on this machine; print the links of a study.")
    pages.add_argument("study", nargs="?", help="its name (all studies)")
    pages.add_argument("--open", action="store_true", help="open the first link in a browser")
    pages.add_argument("--port", type=int, default=5000, help="port (5000)")
    takes_uri(pages, "MLflow store (the study's, sqlite:///<studies>/mlflow.db)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
