"""The `ensdistill` command: trains one ensemble and one student, without a study."""

import argparse
import pkgutil
from collections.abc import Sequence
from functools import partial

from ensdistill.cli.prediction_writers import WRITERS
from ensdistill.config import Config, presets
from ensdistill.export.format_names import FORMATS
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.boundary import run_command
from ensdistill.runtime.command_line import STUDIES
from ensdistill.runtime.fast_imports import fast_imports
from ensdistill.runtime.help_parser import HelpParser, Program, add_completion
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.settings.validation import setting_names, settings_help
from ensdistill.version import __version__

COMMANDS = "ensdistill.cli.commands"
DESCRIPTION = "Ensemble distillation: one student network from an ensemble of teachers."
EXIT_CODES = """\
exit code:
  0  every image has a prediction
  1  some images could not be read; they are listed on standard error and counted
  2  invalid input, such as a missing model or path"""
TRAIN, USE = "train and evaluate", "use a student"  # groups of commands in the help


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0 for success, 1 if training failed or images could not be read, 2 for invalid input,
        130 if interrupted.
    """

    def work() -> int:
        disable_malloc_trim()
        options = _parser().parse_args(arguments)
        with fast_imports():
            command = pkgutil.resolve_name(options.command)  # imports torch, which --help does not require
        return int(command(options))

    return run_command(work)


def _parser() -> HelpParser:
    program = Program("ensdistill", DESCRIPTION, f"ensdistill {__version__}")
    for add in (_teachers, _distill, _evaluate, _export, _predict):
        add(program)
    add_completion(program)
    return program.parser


def _teachers(program: Program) -> None:
    sub = program.add(
        TRAIN,
        "teachers",
        "Train or load the teacher ensemble, and print its metrics.",
        f"{COMMANDS}:teachers",
        ("ensdistill teachers kd", "ensdistill teachers my.yaml --set teachers.count=8"),
    )
    _add_config(sub)
    _add_execution_and_output(sub)


def _distill(program: Program) -> None:
    sub = program.add(
        TRAIN,
        "distill",
        "Train one student from the ensemble.",
        f"{COMMANDS}:distill",
        ("ensdistill distill latentbe", "ensdistill distill my.yaml --set loss.temperature=4 --out runs/mine"),
    )
    _add_config(sub)
    sub.add_argument("--resume", metavar="FILE", help="continue from a checkpoint with the same settings")
    _add_execution_and_output(sub)
    sub.group("output").add_argument(
        "--out", metavar="DIR", help="folder for the student (studies/runs/<hash of the settings>)"
    )


def _evaluate(program: Program) -> None:
    sub = program.add(
        TRAIN,
        "evaluate",
        "Evaluate a distilled student.",
        f"{COMMANDS}:evaluate",
        ("ensdistill evaluate runs/mine --split test", "ensdistill evaluate runs/mine --corruptions --ood other.yaml"),
    )
    _add_config(sub, of_run=True)
    group = sub.group("evaluation")
    group.add_argument(
        "--split", choices=["validation", "test"], default="validation", help="split to evaluate on (validation)"
    )
    group.add_argument(
        "--ood", metavar="CONFIG", help="AUROC for distinguishing the evaluated images from the images in CONFIG"
    )
    group.add_argument(
        "--corruptions", action="store_true", help="accuracy and NLL under corruptions of severity 1 to 5"
    )
    _add_execution_and_output(sub)


def _export(program: Program) -> None:
    sub = program.add(
        USE,
        "export",
        "Write a student as ONNX, torch.export and safetensors files, with a model card.",
        f"{COMMANDS}:export",
        ("ensdistill export runs/mine", "ensdistill export runs/mine --formats onnx --license cc-by-4.0"),
    )
    _add_config(sub, of_run=True)
    group = sub.group("files")
    group.add_argument("--out", metavar="DIR", help="folder for the files (`export` next to the student)")
    group.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=FORMATS, help=f"formats to write ({' '.join(FORMATS)})"
    )
    group.add_argument("--license", default="", metavar="SPDX", help="license of the weights, for the model card")
    _add_execution_and_output(sub)


def _predict(program: Program) -> None:
    sub = program.add(
        USE,
        "predict",
        "Classify images with an exported student.",
        f"{COMMANDS}:predict",
        (
            "ensdistill predict export/ images/",
            "ensdistill predict student.onnx images.zip --format csv --top 5 --out classes.csv",
        ),
    )
    sub.epilog_of = lambda: EXIT_CODES
    sub.add_argument(
        "model",
        metavar="MODEL",
        help="a .safetensors, .onnx or .pt2 file written by `ensdistill export`, or the folder that contains these "
        "files (the .safetensors file is used); use a .pt2 file only if you trust its source, because it may contain "
        "code that torch runs",
    )
    sub.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="image files, folders (searched recursively) or zip files; - reads paths from standard input",
    )
    group = sub.group("output")
    group.add_argument(
        "--top",
        type=_count,
        metavar="K",
        help="number of most likely classes to write per image (2 in a table, otherwise all)",
    )
    group.add_argument(
        "--format",
        choices=list(WRITERS),
        help="format of the predictions (determined by the suffix of FILE, otherwise table)",
    )
    group.add_argument("--out", metavar="FILE", help="file to which the predictions are written")


def _add_config(sub: HelpParser, *, of_run: bool = False) -> None:
    """Adds the options for settings; for commands that accept the folder of a run, also adds `--student`."""
    sub.epilog_of = partial(settings_help, Config, "settings (for --set and YAML files):")
    sub.completions = {"CONFIG": presets, "NAME=VALUE": partial(setting_names, Config)}
    where = " or the folder of a run" if of_run else ""
    sub.add_argument("config", metavar="CONFIG", help=f"a preset ({', '.join(presets())}), a YAML file{where}")
    if of_run:
        sentence = f"weights of the student ({STUDENT_FILE} next to CONFIG or in the folder of the run)"
        sub.add_argument("--student", metavar="FILE", help=sentence)
    sub.group("settings").add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting; may be repeated"
    )


def _add_execution_and_output(sub: HelpParser) -> None:
    sub.group("execution").add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (auto)")
    group = sub.group("output")
    group.add_argument("--studies-dir", default=STUDIES, metavar="DIR", help=f"folder of all results ({STUDIES})")
    group.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)
