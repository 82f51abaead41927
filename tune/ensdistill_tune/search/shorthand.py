"""Hyperparameters in one word, for search spaces that are written in Python.

StudyConfig(search={"loss.temperature": log_uniform(1, 10), "averaging.kind": choice("none", "ema")})
"""

from collections.abc import Mapping
from typing import Any

from ensdistill.settings.validation import validate
from ensdistill_tune.search.hyperparameter import Hyperparameter

When = Mapping[str, Any] | None  # other hyperparameters with their value, or a list of values


def choice(*values: Any, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter that is one of these values."""
    return _of("choice", list(values), when)


def grid(*values: Any, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter that is each of these values in turn."""
    return _of("grid", list(values), when)


def uniform(low: float, high: float, *, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter that is a number between two."""
    return _of("uniform", [low, high], when)


def log_uniform(low: float, high: float, *, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter that is a number between two, uniform in its logarithm."""
    return _of("log_uniform", [low, high], when)


def integer(low: int, high: int, *, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter that is a whole number between two, both included."""
    return _of("integer", [low, high], when)


def _of(kind: str, values: list[Any], when: When) -> Hyperparameter:
    return validate(Hyperparameter, {kind: values, "when": dict(when or {})})
