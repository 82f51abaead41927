"""The one exception family: what went wrong, the value, and the way out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NO_VALUE = object()


@dataclass(frozen=True)
class ConfigIssue:
    """A rule that a setting or file breaks, as an error; or seems to break, as a warning.

    Attributes:
        path: Parts of the dotted name of the setting, for example ("data", "path"); empty for the whole file.
        rule: What must hold, or what was found, without the name: "must be at most 1".
        value: The value that was given; `NO_VALUE` if there is none to show.
        hint: What to do about it, a sentence without its full stop, or None.
    """

    path: tuple[str | int, ...]
    rule: str
    value: Any = NO_VALUE
    hint: str | None = None

    def __str__(self) -> str:
        name = ".".join(map(str, self.path))
        got = "" if self.value is NO_VALUE else f", got {self.value}"
        hint = f". {self.hint[0].upper()}{self.hint[1:]}." if self.hint else ""
        return f"{name}{': ' if name else ''}{self.rule}{got}{hint}"


class EnsdistillError(Exception):
    """Anything this project refuses or gives up on, in words meant for the user."""


class ConfigError(EnsdistillError):
    """Settings that cannot be used. Holds every fault found, one line each, in `faults`."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        return type(self), (self.faults,)


class DataError(EnsdistillError):
    """A file or folder that is missing, damaged, or belongs to something else."""


class DivergedError(EnsdistillError):
    """A training loss that is no longer a finite number."""

    def __init__(self, epoch: int, step: int, loss: float, teacher: int | None = None) -> None:
        self.epoch, self.step, self.loss, self.teacher = epoch, step, loss, teacher
        who, setting = ("", "training.lr") if teacher is None else (f"teacher {teacher}: ", "teachers.training.lr")
        super().__init__(f"{who}the loss became {loss} in epoch {epoch}, step {step}: lower {setting}")

    def __reduce__(self) -> tuple[type["DivergedError"], tuple[int, int, float, int | None]]:
        return type(self), (self.epoch, self.step, self.loss, self.teacher)


class ExportError(EnsdistillError):
    """A student that cannot be written in one format, or whose file does not say what the student says."""


class OutOfMemoryError(EnsdistillError):
    """A training that needs more memory than it can have."""
