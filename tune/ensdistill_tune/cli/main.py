"""The command `ensdistill-tune`: studies are checked, launched, resumed, steered, reported and exported."""

import argparse
import pkgutil
from collections.abc import Sequence

from ensdistill.config import Config
from ensdistill.export.format_names import FORMATS
from ensdistill.runtime.boundary import run_command
from ensdistill.runtime.help_parser import HelpParser
from ensdistill.settings.validation import settings_help
from ensdistill.version import __version__
from ensdistill_tune.execution.environment import configure_process
from ensdistill_tune.study.study_config import StudyConfig

COMMANDS, OVERVIEW = "ensdistill_tune.cli.commands", "ensdistill_tune.cli.overview"
STEERING = "ensdistill_tune.cli.steering"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 no trial ran to its end, 2 bad input, 130 interrupted."""

    def work() -> int:
        configure_process()
        options = _parser().parse_args(arguments)
        command = pkgutil.resolve_name(options.command)  # here: most import torch, which --help need not wait for
        return int(command(options))

    return run_command(work)


def study_help() -> str:
    """Every setting of a search space file, then those that can be searched."""
    return "\n\n".join(
        [settings_help(StudyConfig, "search space files:"), settings_help(Config, "settings to search or fix:")]
    )


def _parser() -> HelpParser:
    parser = HelpParser(prog="ensdistill-tune", description="Hyperparameter studies of ensemble distillation.")
    parser.add_argument("--version", action="version", version=f"ensdistill {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, sentence: str, module: str = COMMANDS) -> HelpParser:
        raw = argparse.RawDescriptionHelpFormatter
        sub = commands.add_parser(name, help=sentence, description=sentence, formatter_class=raw)
        sub.set_defaults(command=f"{module}:{name}")
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

    look = add("check", "Find every fault of a search space file; say what it will cost.", OVERVIEW)
    takes_file(look)
    look.add_argument("--no-estimate", action="store_true", help="time nothing, read no images")
    start = add("launch", "Run a study.")
    takes_file(start)
    start.add_argument("--name", help="name of the study (the file's name, numbered if it is taken)")
    again = add("resume", "Go on with a study that was interrupted, or extend one.")
    again.add_argument("study", help="its name")
    again.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change budget, confirm, trial or tracking"
    )
    again.add_argument(
        "--reevaluate-test", action="store_true", help="look at the test images a second time if need be"
    )
    again.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    for sub in (look, start, again):
        sub.epilog_of = study_help
    for sub in (start, again):
        takes_uri(sub, "MLflow store or server (sqlite:///<studies>/mlflow.db)")
        sub.add_argument("--device", default="auto", help="where teachers are trained: auto, cpu, cuda, ... (auto)")
        sub.add_argument(
            "--executor",
            choices=("ray", "inline"),
            default="ray",
            help="what runs the trials: ray, or inline for one after the other in this process (ray)",
        )
    late = add("sync", "Send MLflow what it could not take while a study ran.")
    late.add_argument("study", help="its name")
    takes_uri(late, "the study's store with its credentials, which are not kept")
    page = add("report", "Say what was learnt: one page with figures, made anew, also while a study runs.")
    page.add_argument("study", help="its name")
    takes_uri(page, "the study's store with its credentials, which are not kept")
    away = add("export", "Write the winner as files that run elsewhere: ONNX, torch.export, safetensors.")
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
    add("schema", "Print the JSON schema of search space files, for editors.", OVERVIEW)
    status = add("status", "Show how far studies are; follow one while it runs (Ctrl-C stops looking).", OVERVIEW)
    status.add_argument("study", nargs="?", help="its name (all studies)")
    status.add_argument("--no-follow", action="store_true", help="show how it stands now and do not follow it")
    status.add_argument("--json", action="store_true", help="print one JSON value and nothing else")
    more = add(
        "enqueue", "Put settings first in the queue of a study, while it runs or before it is resumed.", STEERING
    )
    more.add_argument("study", help="its name")
    more.add_argument(
        "--set", action="append", required=True, metavar="NAME=VALUE", help="a searched setting; others are suggested"
    )
    end = add("stop", "Stop a study that runs, as Ctrl-C does, or one of its trials.", STEERING)
    end.add_argument("study", help="its name")
    end.add_argument("--trial", type=int, metavar="N", help="number of the trial (the whole study)")
    pages = add("ui", "Serve MLflow's pages on this machine; print the links of a study.")
    pages.add_argument("study", nargs="?", help="its name (all studies)")
    pages.add_argument("--open", action="store_true", help="open the first link in a browser")
    pages.add_argument("--port", type=int, default=5000, help="port (5000)")
    takes_uri(pages, "MLflow store (the study's, sqlite:///<studies>/mlflow.db)")
    return parser
