"""`ensdistill teachers | distill | evaluate | export | predict`: one ensemble, one student, by hand."""

import argparse
import pkgutil
from collections.abc import Sequence
from functools import partial

from ensdistill.cli.predict import WRITERS
from ensdistill.config import Config, presets
from ensdistill.export.format_names import FORMATS
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.boundary import run_command
from ensdistill.runtime.help_parser import HelpParser
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.settings.validation import settings_help
from ensdistill.version import __version__

COMMANDS = "ensdistill.cli.commands"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 the training failed, 2 bad input, 130 interrupted."""

    def work() -> int:
        disable_malloc_trim()
        options = _parser().parse_args(arguments)
        command = pkgutil.resolve_name(options.command)  # here: it imports torch, which --help need not wait for
        return int(command(options))

    return run_command(work)


def _parser() -> HelpParser:
    parser = HelpParser(
        prog="ensdistill", description="Ensemble distillation: one student network from an ensemble of teachers."
    )
    parser.add_argument("--version", action="version", version=f"ensdistill {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, sentence: str) -> HelpParser:
        sub = commands.add_parser(
            name,
            help=sentence,
            description=sentence,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.epilog_of = partial(settings_help, Config, "settings (for --set and YAML files):")
        sub.set_defaults(command=f"{COMMANDS}:{name}")
        where = " or the folder of a run" if name in ("evaluate", "export") else ""
        names = ", ".join(presets())
        sub.add_argument("config", metavar="CONFIG", help=f"a preset ({names}), a YAML file{where}")
        sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override one setting")
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        sub.add_argument("--studies-dir", default="studies", metavar="DIR", help="where all results go (studies)")
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (auto)")
        if where:
            sub.add_argument(
                "--student", metavar="FILE", help=f"its weights ({STUDENT_FILE} beside CONFIG, or of its run)"
            )
        return sub

    add("teachers", "Train the teacher ensemble, or load it, and show how good it is.")
    one = add("distill", "Train one student from the ensemble.")
    one.add_argument("--out", metavar="DIR", help="where the student goes (studies/runs/<hash of the settings>)")
    one.add_argument("--resume", metavar="FILE", help="go on from a checkpoint of the same settings")
    two = add("evaluate", "Evaluate a distilled student.")
    two.add_argument("--split", choices=["validation", "test"], default="validation", help="which images (validation)")
    two.add_argument("--ood", metavar="CONFIG", help="AUROC of telling these images from those of CONFIG's data")
    two.add_argument("--corruptions", action="store_true", help="accuracy and NLL under corruptions of severity 1 to 5")
    three = add("export", "Write a distilled student as files that run elsewhere, with a model card.")
    three.add_argument("--out", metavar="DIR", help="where they go (the folder export beside the student)")
    three.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=FORMATS, help=f"which files ({' '.join(FORMATS)})"
    )
    three.add_argument(
        "--license", default="", metavar="NAME", help="license of the weights, for the card: cc-by-4.0, ..."
    )
    _add_predict(commands)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _add_predict(commands: "argparse._SubParsersAction[HelpParser]") -> None:
    sentence = "Classify images with an exported student."
    sub = commands.add_parser("predict", help=sentence, description=sentence)
    sub.set_defaults(command=f"{COMMANDS}:predict")
    sub.add_argument(
        "model",
        metavar="MODEL",
        help="a .safetensors, .onnx or .pt2 file of `ensdistill export`, or its folder, of which the .safetensors is "
        "taken; a .pt2 file only from those you trust: torch may run what is in it",
    )
    sub.add_argument("images", nargs="+", metavar="IMAGES", help="image files, folders (with all below), zip files")
    sub.add_argument("--top", type=_count, default=2, metavar="K", help="how many classes the table shows (2)")
    sub.add_argument(
        "--format", choices=list(WRITERS), help="csv and json have all probabilities (table, or as FILE says)"
    )
    sub.add_argument("--out", metavar="FILE", help="write to this file")
