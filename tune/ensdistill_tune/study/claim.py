"""Creates the folder of a new study; existing studies are never overwritten."""

import contextlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

from ensdistill.errors import ConfigError, DataError, format_value
from ensdistill.runtime.command_line import Option, command_line
from ensdistill_tune.records.study_directory import StudyDirectory

RESERVED = (
    "teachers",
    "datasets",
    "runs",
    "artifacts",
    "bench",
    "gpu-check",
    "compare",
    "mlflow.db",
    "mlflow.db-wal",
    "mlflow.db-shm",
)  # names of other files and folders that the studies folder can contain


def claim(studies: Path, chosen: str | None, default: str, note: Callable[[str], None]) -> str:
    """Creates the folder of a new study and returns its name.

    Args:
        studies: Folder that contains all studies.
        chosen: Requested name, which must not be in use; None for the default.
        default: Name if `chosen` is None; a number is appended if a study with this name exists.
        note: Function that prints a hint about an unfinished study with the default name.

    Raises:
        ConfigError: The name is invalid or in use.
        DataError: The folder cannot be created.
    """
    name = default if chosen is None else chosen
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in RESERVED:
        rule = f"must consist of letters, digits, ., _ and -, and must not be {' or '.join(RESERVED)}"
        raise ConfigError(f"name: {rule}, got {format_value(name)}. Choose another name.")
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
                state = _state(studies / name)
                note(f"note: study {name} already exists ({state}); resume it with `{again}`. Starting a new study.")
        except OSError as error:
            raise DataError(f"{studies}: must be writable ({error.strerror}). Choose another folder.") from error
        else:
            return candidate
    raise AssertionError


def resume_command(studies: Path, name: str, *options: Option) -> str:
    """Returns the command that resumes a study."""
    return command_line("ensdistill-tune", "resume", name, options=options, studies=studies)


def _taken(studies: Path, name: str) -> str:
    state, more = _state(studies / name), ("--set", "budget.trials=N")
    what = (
        f"`{resume_command(studies, name, more)}` extends it"
        if state == "finished"
        else f"`{resume_command(studies, name)}` resumes it"
    )
    return f"name {name}: {studies / name} already exists ({state}); {what}, or choose another name"


def _begun(home: Path) -> bool:
    """Returns whether this folder contains a study, that is, more than the lock file of a failed launch."""
    return not home.is_dir() or any(file.name != ".lock" for file in home.iterdir())


def _state(home: Path) -> str:
    with contextlib.suppress(DataError):
        return str(StudyDirectory(home).read_summary()["state"])
    return "no study"
