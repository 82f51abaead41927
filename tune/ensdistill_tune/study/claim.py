"""The folder of a new study: nothing that exists is ever overwritten."""

import contextlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.command_line import Option, command_line
from ensdistill_tune.records.study_directory import StudyDirectory

RESERVED = ("teachers", "runs", "artifacts", "bench", "mlflow.db")  # what lies next to the studies


def claim(studies: Path, chosen: str | None, default: str, note: Callable[[str], None]) -> str:
    """Makes the folder of a new study and returns its name.

    Args:
        studies: The folder of all studies.
        chosen: The name; a taken one is refused. None for the default.
        default: The name without a chosen one; it is numbered if it is taken.
        note: Prints a hint at an unfinished study of the default name.

    Raises:
        ConfigError: The name is none, or taken.
        DataError: The folder cannot be made.
    """
    name = default if chosen is None else chosen
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in RESERVED:
        rule = f"a study's name is letters, digits, . _ - and none of {', '.join(RESERVED)}"
        raise ConfigError(f"name {name}: {rule}" + ("" if chosen is not None else "; choose another name"))
    for attempt in itertools.count(1):
        candidate = name if attempt == 1 else f"{name}-{attempt}"
        try:
            (studies / candidate).mkdir()
        except FileExistsError:
            if not _begun(studies / candidate):
                return candidate
            if chosen is not None:
                raise ConfigError(_taken(studies, name)) from None
            if attempt == 1 and _state(studies / name) not in ("finished", "failed"):
                again = resume_command(studies, name)
                note(
                    f"note: {name} is there, {_state(studies / name)}; `{again}` goes on with it. This is a new study."
                )
        except OSError as error:
            raise DataError(f"{studies}: cannot be written ({error.strerror})") from error
        else:
            return candidate
    raise AssertionError


def resume_command(studies: Path, name: str, *options: Option) -> str:
    """The command that continues a study."""
    return command_line("ensdistill-tune", "resume", name, options=options, studies=studies)


def _taken(studies: Path, name: str) -> str:
    state, more = _state(studies / name), ("--set", "budget.trials=N")
    what = (
        f"`{resume_command(studies, name, more)}` extends it"
        if state == "finished"
        else f"`{resume_command(studies, name)}` goes on with it"
    )
    return f"name {name}: {studies / name} is there already ({state}); {what}, or choose another name"


def _begun(home: Path) -> bool:
    """Whether a folder is that of a study; one that came to nothing may hold the file of a lock."""
    return not home.is_dir() or any(file.name != ".lock" for file in home.iterdir())


def _state(home: Path) -> str:
    with contextlib.suppress(DataError):
        return str(StudyDirectory(home).read_summary()["state"])
    return "no study"
