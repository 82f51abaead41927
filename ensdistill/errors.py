"""Exceptions of this project; each message states the violated rule, the value and the fix."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class _NoValue(Enum):  # an enum, because unpickling a member returns the same object
    NO_VALUE = "no value"


NO_VALUE = _NoValue.NO_VALUE
_short = reprlib.Repr()  # set as attributes, because Repr takes no arguments in Python 3.11
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxstring, _short.maxother = 3, 8, 8, 100, 100


@dataclass(frozen=True)
class ConfigIssue:
    """An error or a warning about one setting or file.

    Programs should use the fields; the message that `str` returns is only for display. Compare issues by `repr`, which
    distinguishes the values 1, 1.0 and true; `==` does not.

    Attributes:
        path: Parts of the dotted name of the setting, for example ("data", "path"); empty for the whole file.
        rule: The violated rule or the problem, without the name of the setting: "must be at most 1". In the message,
            the value replaces `{value}` or, if there is no such placeholder, follows the rule.
        value: The given value; `NO_VALUE` if the message contains no value.
        hint: The fix as a sentence without a final period, or None.
        code: Kind of the issue, for code that must not depend on the wording.
        given: Names and values of the settings that together cause the issue; the message starts with these instead of
            the name.
        cause: The underlying issue.
        origin: Prefix of the message: the file and the line, or the command-line option.
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
        """Text that states the rule, the value and the hint, but not the name."""
        text = self.rule
        if self.value is not NO_VALUE:
            value = format_value(self.value)
            text = text.replace("{value}", value) if "{value}" in text else f"{text}, got {value}"
        if not self.hint:
            return text
        return f"{text} ({self.hint})" if self.hint.endswith("?") else f"{text}. {self.hint[0].upper()}{self.hint[1:]}."

    def below(self, *parts: str | int) -> "ConfigIssue":
        """Returns the issue with a prefix added to its path.

        Args:
            parts: The prefix: path of the subtree that contains the setting.
        """
        return replace(self, path=(*parts, *self.path))

    def as_row(self) -> dict[str, Any]:
        """Returns the path, the rule, the hint and, if present, the value, as plain values for JSON."""
        row = {"path": list(self.path), "rule": self.rule, "hint": self.hint}
        return row if self.value is NO_VALUE else row | {"value": _plain(self.value)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ConfigIssue":
        """Returns the issue that a row describes.

        Args:
            row: A result of `as_row`.
        """
        return cls(tuple(row["path"]), row["rule"], row.get("value", NO_VALUE), row["hint"])


def teacher_name(teacher: int) -> str:
    """Returns the name of a teacher for messages, in which teachers are numbered from 1.

    Args:
        teacher: Index of the teacher, from 0.
    """
    return f"teacher {teacher + 1}"


def format_value(value: Any) -> str:
    """Returns a value as text for messages: null, true and false as in YAML, long values shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _short.repr(value)


def _plain(value: Any) -> Any:
    """Returns the value in a form that JSON can represent; values of other types are converted to strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


class EnsdistillError(Exception):
    """Base class of all errors raised by this project; the message is meant for the user."""


class ConfigError(EnsdistillError):
    """Invalid settings.

    Attributes:
        issues: Every issue found. The message contains one line per issue.
    """

    def __init__(self, issues: str | ConfigIssue | Sequence[str | ConfigIssue]) -> None:
        """Creates an error from one or several issues.

        Args:
            issues: The issues; a string becomes an issue without a setting.
        """
        several = [issues] if isinstance(issues, str | ConfigIssue) else issues
        self.issues = [ConfigIssue((), one) if isinstance(one, str) else one for one in several]
        super().__init__("\n".join(map(str, self.issues)))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[ConfigIssue]]]:
        return type(self), (self.issues,)


class SettingError(ValueError):
    """An issue raised by a validator; its path is relative to the settings that the validator receives.

    Attributes:
        issue: The issue.
    """

    def __init__(self, issue: ConfigIssue) -> None:
        self.issue = issue
        super().__init__(str(issue))


class SettingWarning(UserWarning):
    """A warning about a setting.

    Attributes:
        issue: The issue.
    """

    def __init__(self, issue: ConfigIssue) -> None:
        self.issue = issue
        super().__init__(str(issue))


class DataError(EnsdistillError):
    """A file or folder that is missing, damaged, or made for different data or a different network."""


class MachineError(DataError):
    """A machine that cannot run trials: its disk is full, or its files or package versions differ from the study's.

    The cause is not a setting of a trial, so the study stops. The study can be resumed once the problem is fixed.
    """


class DivergedError(EnsdistillError):
    """A training loss that became NaN or infinite.

    Attributes:
        epoch: Epoch number, from 1.
        step: Step number within the epoch, from 1.
        loss: The loss, NaN or infinite.
        teacher: Index of the teacher, from 0; None for the student.
    """

    def __init__(self, epoch: int, step: int, loss: float, teacher: int | None = None) -> None:
        self.epoch, self.step, self.loss, self.teacher = epoch, step, loss, teacher
        network = "" if teacher is None else f"{teacher_name(teacher)}: "
        setting = "training.optimizer.lr" if teacher is None else "teachers.training.optimizer.lr"
        super().__init__(f"{network}the loss became {loss} in epoch {epoch}, step {step}: lower {setting}")

    def __reduce__(self) -> tuple[type["DivergedError"], tuple[int, int, float, int | None]]:
        return type(self), (self.epoch, self.step, self.loss, self.teacher)


class ExportError(EnsdistillError):
    """A student that cannot be exported, or whose exported file does not reproduce the student's outputs."""


class OutOfMemoryError(EnsdistillError):
    """A training run that requires more memory than is available."""
