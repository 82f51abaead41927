"""Options that several commands of `ensdistill-tune` share, with the same name, group and help text everywhere."""

from functools import partial

from ensdistill.config import Config, presets
from ensdistill.export.format_names import FORMATS
from ensdistill.runtime.command_line import STUDIES
from ensdistill.runtime.help_parser import HelpParser
from ensdistill.settings.validation import setting_names, settings_help
from ensdistill_tune.study.study_config import StudyConfig

CREDENTIALS = "the MLflow store of the study, including its credentials, which are never saved"
EXIT_CODES = """exit codes:
  0    A is better than every B
  1    not distinguishable
  2    error
  3    A is worse than at least one B
  130  interrupted; run the same command to continue"""
VERIFIED = "device on which the files are verified and timed: auto, cpu, cuda, ... (auto)"


def add_file(sub: HelpParser) -> None:
    """Adds the argument FILE, a study file."""
    sub.add_argument("file", metavar="FILE", help="a study file, such as search_spaces/digits.yaml")


def add_study(sub: HelpParser, *, optional: bool = False) -> None:
    """Adds the argument STUDY, the name of a study."""
    sentence = "name of the study" + (" (all studies)" if optional else "")
    sub.add_argument("study", metavar="STUDY", nargs="?" if optional else None, help=sentence)


def add_contenders(sub: HelpParser) -> None:
    """Adds the arguments of `compare`: A, B, the source of data and teachers, the metric and the seeds."""
    what = "a preset, a settings file, a study (its best trial) or STUDY:TRIAL"
    sub.add_argument("first", metavar="A", help=what)
    sub.add_argument("others", metavar="B", nargs="+", help="settings to compare with A, in one of the same forms")
    group = sub.group("settings")
    sentence = (
        "settings file or study file with the data and teachers for A and each B, "
        "and with the model and training for presets (cluttered_digits)"
    )
    group.add_argument("--config", metavar="FILE", help=sentence)
    sentence = "validation metric to compare; the test images are not read (val/nll)"
    group.add_argument("--metric", default="val/nll", help=sentence)
    group.add_argument("--seeds", type=int, default=20, metavar="N", help="maximum number of seeds, 6 to 20 (20)")
    group.add_argument("--first-seed", type=int, default=0, metavar="N", help="first seed of the students (0)")
    sub.completions = {"A": presets, "NAME=VALUE": partial(setting_names, Config)}
    sub.epilog_of = lambda: EXIT_CODES


def add_set(sub: HelpParser, sentence: str, *, required: bool = False) -> None:
    """Adds `--set NAME=VALUE`."""
    default = None if required else list[str]()
    sub.group("settings").add_argument(
        "--set", action="append", default=default, required=required, metavar="NAME=VALUE", help=sentence
    )


def add_settings(sub: HelpParser) -> None:
    """Appends all settings of a study file to the help, followed by all settings that can be searched."""
    sub.epilog_of = _study_help
    sub.completions = {"NAME=VALUE": _study_settings}


def _study_settings() -> list[str]:
    """Returns the names of the settings of a study file, including those below `config` but not user-defined keys."""
    own = [
        name for name in setting_names(StudyConfig) if name.partition(".")[0] not in ("config", "search", "constraints")
    ]
    return own + [f"config.{name}" for name in setting_names(Config)]


def _study_help() -> str:
    parts = ((StudyConfig, "settings of study files:"), (Config, "settings to search over or hold fixed:"))
    return "\n\n".join(settings_help(model, title) for model, title in parts)


def add_execution(sub: HelpParser) -> None:
    """Adds the options that select where trials and teachers run."""
    group = sub.group("execution")
    sentence = "ray, or inline: one trial after the other in this process (ray)"
    group.add_argument("--executor", choices=("ray", "inline"), default="ray", help=sentence)
    group.add_argument(
        "--device", default="auto", help="device on which teachers are trained: auto, cpu, cuda, ... (auto)"
    )


def add_store(sub: HelpParser, sentence: str) -> None:
    """Adds `--tracking-uri URI`."""
    sub.group("MLflow").add_argument("--tracking-uri", metavar="URI", help=sentence)


def add_registry(sub: HelpParser) -> None:
    """Adds the options of the model registry."""
    group = sub.group("MLflow")
    group.add_argument("--register", metavar="NAME", help="register the model under this name in the model registry")
    group.add_argument("--champion", action="store_true", help="give the registered winner the alias `champion`")


def add_students(sub: HelpParser) -> None:
    """Adds the options that select students."""
    which = sub.group("students").add_mutually_exclusive_group()
    which.add_argument(
        "--top", type=int, default=1, metavar="K", help="number of best students to export, in separate folders (1)"
    )
    which.add_argument("--trial", type=int, metavar="N", help="export only the student of trial N")


def add_export(sub: HelpParser) -> None:
    """Adds the command-line options for exported files."""
    group = sub.group("files")
    group.add_argument("--out", metavar="DIR", help="folder for the exported files (<study>/export)")
    group.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="formats to write (all)")
    group.add_argument("--license", default="", metavar="SPDX", help="license of the weights, for the model card")


def add_output(sub: HelpParser, json: str = "") -> None:
    """Adds `--studies-dir`, the folder of all results, and `--json` if the command can print JSON.

    Args:
        sub: The parser of the command.
        json: Kind of JSON that `--json` prints: `object` or `value`; empty if the command prints no JSON.
    """
    group = sub.group("output")
    group.add_argument("--studies-dir", default=STUDIES, metavar="DIR", help=f"folder of all results ({STUDIES})")
    if json:
        group.add_argument("--json", action="store_true", help=f"print one JSON {json} and nothing else")
