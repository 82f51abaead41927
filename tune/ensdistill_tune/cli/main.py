"""The command `ensdistill-tune`: checks, runs, resumes, steers, reports and exports studies."""

import pkgutil
import sys
from collections.abc import Sequence

from ensdistill.runtime.boundary import run_command
from ensdistill.runtime.fast_imports import fast_imports
from ensdistill.runtime.help_parser import HelpParser, Program, add_completion
from ensdistill.version import __version__
from ensdistill_tune.cli import options
from ensdistill_tune.execution.environment import configure_process

COMMANDS, OVERVIEW = "ensdistill_tune.cli.commands", "ensdistill_tune.cli.overview"
STEERING, RECOVERY, CLEANING = (f"ensdistill_tune.cli.{name}" for name in ("steering", "recovery", "cleaning"))
COMPARISON = "ensdistill_tune.cli.comparison"
RUN, FOLLOW, RESULTS, SET_UP = "run a study", "follow and steer a study", "results", "set up"  # groups of commands
TUNE = "ensdistill-tune"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0 if the command completed, 1 if no trial completed, 2 after invalid input, 130 if interrupted.
        `compare` returns 0, 1 or 3, depending on its result, or 2 after any error.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)

    def work() -> int:
        configure_process()
        options = _parser().parse_args(given)
        with fast_imports():
            command = pkgutil.resolve_name(options.command)  # imported here, because --help must not import torch
        return int(command(options))

    return run_command(work, failure=2 if given[:1] == ["compare"] else 1)


def _parser() -> HelpParser:
    program = Program(TUNE, "Hyperparameter studies of ensemble distillation.", f"ensdistill {__version__}")
    run, results = (_check, _launch, _resume, _fsck), (_compare, _report, _ui, _export, _sync)
    for add in (*run, _status, _enqueue, _stop, *results, _schema, _clean):
        add(program)
    add_completion(program)
    return program.parser


def _check(program: Program) -> None:
    sub = program.add(
        RUN,
        "check",
        "Report all errors in a study file, and estimate the cost of the study.",
        f"{OVERVIEW}:check",
        (f"{TUNE} check my.yaml", f"{TUNE} check my.yaml --set budget.trials=100 --no-estimate"),
    )
    options.add_file(sub)
    options.add_set(sub, "override a setting of the file; may be repeated")
    sub.add_argument("--no-estimate", action="store_true", help="skip the estimate: train nothing, read no images")
    options.add_output(sub, "object")
    options.add_settings(sub)


def _launch(program: Program) -> None:
    sub = program.add(
        RUN,
        "launch",
        "Run a new study.",
        f"{COMMANDS}:launch",
        (f"{TUNE} launch my.yaml", f"{TUNE} launch my.yaml --name second --set budget.minutes=60"),
    )
    options.add_file(sub)
    sub.add_argument(
        "--name", help="name of the study (default: name of the file, with a number if this name is in use)"
    )
    options.add_set(sub, "override a setting of the file; may be repeated")
    options.add_execution(sub)
    options.add_store(sub, "MLflow store or server (sqlite:///<studies>/mlflow.db)")
    options.add_output(sub, "object")
    options.add_settings(sub)


def _resume(program: Program) -> None:
    sub = program.add(
        RUN,
        "resume",
        "Continue an interrupted study, or extend a finished one.",
        f"{COMMANDS}:resume",
        (f"{TUNE} resume mine", f"{TUNE} resume mine --set budget.trials=100"),
    )
    options.add_study(sub)
    options.add_set(sub, "change budget, confirmation, constraints, resources or tracking; may be repeated")
    sub.add_argument(
        "--reevaluate-test", action="store_true", help="evaluate the test set again if another student has won"
    )
    options.add_execution(sub)
    options.add_store(sub, "MLflow store or server (default: as before)")
    options.add_output(sub, "object")
    options.add_settings(sub)


def _fsck(program: Program) -> None:
    sub = program.add(
        RUN,
        "fsck",
        "Check the event log of a study; recover the intact records if the log is damaged.",
        f"{RECOVERY}:fsck",
        (f"{TUNE} fsck mine", f"{TUNE} fsck mine --to 120"),
    )
    options.add_study(sub)
    sub.add_argument(
        "--to",
        type=int,
        metavar="N",
        help="remove all records after record N; the log is copied first (default: remove none)",
    )
    options.add_output(sub, "object")


def _status(program: Program) -> None:
    sub = program.add(
        FOLLOW,
        "status",
        "Show the progress of studies; follow one study while it runs (Ctrl-C stops following).",
        f"{OVERVIEW}:status",
        (f"{TUNE} status", f"{TUNE} status mine --no-follow"),
    )
    options.add_study(sub, optional=True)
    sub.add_argument("--no-follow", action="store_true", help="show the current state and exit")
    options.add_output(sub, "value")


def _enqueue(program: Program) -> None:
    sub = program.add(
        FOLLOW,
        "enqueue",
        "Put settings at the front of a study's queue, even if the study is not running.",
        f"{STEERING}:enqueue",
        (f"{TUNE} enqueue mine --set loss.temperature=4",),
    )
    options.add_study(sub)
    options.add_set(
        sub, "value of a searched setting (the searcher suggests the others); may be repeated", required=True
    )
    options.add_output(sub)


def _stop(program: Program) -> None:
    sub = program.add(
        FOLLOW,
        "stop",
        "Stop a running study, like Ctrl-C, or one of its trials.",
        f"{STEERING}:stop",
        (f"{TUNE} stop mine", f"{TUNE} stop mine --trial 12"),
    )
    options.add_study(sub)
    sub.add_argument("--trial", type=int, metavar="N", help="number of the trial to stop (default: the whole study)")
    options.add_output(sub)


def _compare(program: Program) -> None:
    sub = program.add(
        RESULTS,
        "compare",
        "Compare settings with paired seeds until a decision; the exit code gives the result.",
        f"{COMPARISON}:compare",
        (f"{TUNE} compare latentbe kd", f"{TUNE} compare mine kd --config my.yaml --json"),
    )
    options.add_contenders(sub)
    options.add_set(sub, "override a setting in A and in each B; may be repeated")
    group = sub.group("execution")
    group.add_argument("--device", default="auto", help="device for all training: auto, cpu, cuda, ... (auto)")
    group.add_argument("--workers", type=int, default=2, metavar="N", help="number of training processes (2)")
    options.add_output(sub, "object")


def _report(program: Program) -> None:
    sub = program.add(
        RESULTS,
        "report",
        "Regenerate the report of a study, even while the study is running.",
        f"{COMMANDS}:report",
        (f"{TUNE} report mine",),
    )
    options.add_study(sub)
    options.add_store(sub, options.CREDENTIALS)
    options.add_output(sub)


def _ui(program: Program) -> None:
    sub = program.add(
        RESULTS,
        "ui",
        "Serve the MLflow pages on this machine and print the links to a study.",
        f"{COMMANDS}:ui",
        (f"{TUNE} ui", f"{TUNE} ui mine --open"),
    )
    options.add_study(sub, optional=True)
    sub.add_argument("--open", action="store_true", help="open the first link in a browser")
    sub.add_argument("--port", type=int, default=5000, help="port of the server (5000)")
    options.add_store(sub, "MLflow store (the store of the study, or sqlite:///<studies>/mlflow.db)")
    options.add_output(sub)


def _export(program: Program) -> None:
    sub = program.add(
        RESULTS,
        "export",
        "Write the winner as ONNX, torch.export and safetensors files, with a model card.",
        f"{COMMANDS}:export",
        (f"{TUNE} export mine", f"{TUNE} export mine --formats onnx --register my-digits --champion"),
    )
    options.add_study(sub)
    options.add_students(sub)
    options.add_export(sub)
    sub.group("execution").add_argument("--device", default="auto", help=options.VERIFIED)
    options.add_registry(sub)
    options.add_store(sub, options.CREDENTIALS)
    options.add_output(sub, "value")


def _sync(program: Program) -> None:
    sub = program.add(
        RESULTS,
        "sync",
        "Send pending events to MLflow.",
        f"{COMMANDS}:sync",
        (f"{TUNE} sync mine", f"{TUNE} sync mine --tracking-uri http://HOST:5000"),
    )
    options.add_study(sub)
    options.add_store(sub, options.CREDENTIALS)
    options.add_output(sub)


def _schema(program: Program) -> None:
    sub = program.add(
        SET_UP,
        "schema",
        "Print the JSON schema of study files, for editors.",
        f"{OVERVIEW}:schema",
        (f"{TUNE} schema",),
    )
    options.add_output(sub)


def _clean(program: Program) -> None:
    sub = program.add(
        SET_UP,
        "clean",
        "List data sets, teachers and studies with their sizes, or remove the named ones.",
        f"{CLEANING}:clean",
        (f"{TUNE} clean", f"{TUNE} clean datasets teachers/0123456789abcdef studies/old --remove"),
    )
    sentence = "datasets, teachers, or a listed entry, such as studies/mine (all)"
    sub.add_argument("names", metavar="NAME", nargs="*", help=sentence)
    sub.add_argument("--remove", action="store_true", help="remove the named entries that are not in use")
    options.add_output(sub, "value")
