"""Short constructors for hyperparameters, for search spaces written in Python.

StudyConfig(search={"loss.temperature": log_uniform(1, 10), "averaging.kind": choice("none", "ema")})
"""

from collections.abc import Mapping
from typing import Any

from ensdistill.settings.validation import validate
from ensdistill_tune.search.hyperparameter import Hyperparameter

When = Mapping[str, Any] | None  # names of other hyperparameters, each mapped to a value or a list of values


def choice(*values: Any, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter that takes one of these values.

    Args:
        *values: The values.
        when: Condition: names of other hyperparameters, each mapped to a required value or a list of allowed values.
    """
    return _of("choice", list(values), when)


def grid(*values: Any, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter that takes these values in turn.

    Args:
        *values: The values.
        when: Condition, as in `choice`.
    """
    return _of("grid", list(values), when)


def uniform(low: float, high: float, *, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter with real values that are uniformly distributed over a range.

    Args:
        low: Lower end of the range.
        high: Upper end of the range.
        when: Condition, as in `choice`.
    """
    return _of("uniform", [low, high], when)


def log_uniform(low: float, high: float, *, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter with positive values whose logarithm is uniformly distributed.

    Args:
        low: Lower end of the range, above 0.
        high: Upper end of the range.
        when: Condition, as in `choice`.
    """
    return _of("log_uniform", [low, high], when)


def integer(low: int, high: int, *, when: When = None) -> Hyperparameter:
    """Returns a hyperparameter with integer values in a range.

    Args:
        low: Lower end of the range, inclusive.
        high: Upper end of the range, inclusive.
        when: Condition, as in `choice`.
    """
    return _of("integer", [low, high], when)


def _of(kind: str, values: list[Any], when: When) -> Hyperparameter:
    return validate(Hyperparameter, {kind: values, "when": dict(when or {})})
