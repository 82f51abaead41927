"""The one exception family: what went wrong, the value, and the way out."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class _NoValue(Enum):  # an enum, because its members stay themselves when they are pickled
    NO_VALUE = "no value"


NO_VALUE = _NoValue.NO_VALUE
_short = reprlib.Repr()  # Python 3.11 has no arguments for it
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxstring, _short.maxother = 3, 8, 8, 100, 100


@dataclass(frozen=True)
class ConfigIssue:
    """A rule that a setting or file breaks, as an error; or seems to break, as a warning.

    Code reads the fields; only people read the text, which `str` makes of them. Two issues are the same if their `repr`
    is: 1, 1.0 and true are three values.

    Attributes:
        path: Parts of the dotted name of the setting, for example ("data", "path"); empty for the whole file.
        rule: What must hold, or what was found, without the name: "must be at most 1". The text has the value in place
            of `{value}`, or else behind the rule.
        value: The value that was given; `NO_VALUE` if there is none to show.
        hint: What to do about it, a sentence without its full stop, or None.
        code: The kind of issue where code has to know it, whatever its wording.
        given: Other settings and their values under which the issue arises; the text has them in place of the name.
        cause: The issue behind this one.
        origin: What stands before the text: file and line, or the option of a command line.
    """

    path: tuple[str | int, ...]
    rule: str = ""
    value: Any = NO_VALUE
    hint: str | None = None
    code: str = ""
    given: tuple[tuple[str, Any], ...] = ()
    cause: "ConfigIssue | None" = None
    origin: str = ""

    def __str__(self) -> str:
        head = " with ".join(f"{name} = {format_value(value)}" for name, value in self.given) or self.name
        parts = (head, self.sentence, str(self.cause or ""))
        return self.origin + ": ".join(part for part in parts if part)

    @property
    def name(self) -> str:
        """Dotted name of the setting."""
        return ".".join(map(str, self.path))

    @property
    def sentence(self) -> str:
        """Text of rule, value and hint."""
        text = self.rule
        if self.value is not NO_VALUE:
            value = format_value(self.value)
            text = text.replace("{value}", value) if "{value}" in text else f"{text}, got {value}"
        if not self.hint:
            return text
        return f"{text} ({self.hint})" if self.hint.endswith("?") else f"{text}. {self.hint[0].upper()}{self.hint[1:]}."

    def below(self, *parts: str | int) -> "ConfigIssue":
        """Returns the issue of the same setting as seen from a tree that holds this one at a path."""
        return replace(self, path=(*parts, *self.path))

    def as_row(self) -> dict[str, Any]:
        """Returns the fields as plain values for JSON, without `value` if there is none."""
        row = {"path": list(self.path), "rule": self.rule, "hint": self.hint}
        return row if self.value is NO_VALUE else row | {"value": _plain(self.value)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ConfigIssue":
        """Returns the issue of a row that `as_row` made."""
        return cls(tuple(row["path"]), row["rule"], row.get("value", NO_VALUE), row["hint"])


def teacher_name(teacher: int) -> str:
    """Returns what texts call a teacher: people count from 1, data from 0."""
    return f"teacher {teacher + 1}"


def format_value(value: Any) -> str:
    """Returns a value as messages have it: as YAML writes it, and shortened if it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _short.repr(value)


def _plain(value: Any) -> Any:
    """Returns the value as JSON has it, and as text whatever JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


class EnsdistillError(Exception):
    """Anything this project refuses or gives up on, in words meant for the user."""


class ConfigError(EnsdistillError):
    """Settings that cannot be used. Holds every issue found in `issues`; its text has a line for each."""

    def __init__(self, issues: str | ConfigIssue | Sequence[str | ConfigIssue]) -> None:
        """Takes issues. A text is one of no particular setting."""
        several = [issues] if isinstance(issues, str | ConfigIssue) else issues
        self.issues = [ConfigIssue((), one) if isinstance(one, str) else one for one in several]
        super().__init__("\n".join(map(str, self.issues)))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[ConfigIssue]]]:
        return type(self), (self.issues,)


class SettingError(ValueError):
    """What a validator of settings raises about a setting below those that it is given."""

    def __init__(self, issue: ConfigIssue) -> None:
        self.issue = issue
        super().__init__(str(issue))


class DataError(EnsdistillError):
    """A file or folder that is missing, damaged, or belongs to something else."""


class DivergedError(EnsdistillError):
    """A training loss that is no longer a finite number."""

    def __init__(self, epoch: int, step: int, loss: float, teacher: int | None = None) -> None:
        self.epoch, self.step, self.loss, self.teacher = epoch, step, loss, teacher
        who = "" if teacher is None else f"{teacher_name(teacher)}: "
        setting = "training.optimizer.lr" if teacher is None else "teachers.training.optimizer.lr"
        super().__init__(f"{who}the loss became {loss} in epoch {epoch}, step {step}: lower {setting}")

    def __reduce__(self) -> tuple[type["DivergedError"], tuple[int, int, float, int | None]]:
        return type(self), (self.epoch, self.step, self.loss, self.teacher)


class ExportError(EnsdistillError):
    """A student that cannot be written in one format, or whose file does not say what the student says."""


class OutOfMemoryError(EnsdistillError):
    """A training that needs more memory than it can have."""
