"""Bounds on metrics; a trial that breaks a bound cannot win."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import model_validator

from ensdistill.errors import ConfigIssue, SettingError
from ensdistill.settings.base import Settings, setting

INFEASIBLE = 1e9  # minimum magnitude of the values that `penalized` substitutes; far above every objective


class Constraint(Settings):
    """Inclusive bounds on one metric."""

    at_least: float | None = setting(None, "Smallest allowed value.")
    at_most: float | None = setting(None, "Largest allowed value.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise SettingError(ConfigIssue((), "must have at_least, at_most or both"))
        if None not in (self.at_least, self.at_most) and self.at_least > self.at_most:  # type: ignore[operator]
            rule = f"must not exceed at_most {self.at_most:g}, got {{value}}"
            raise SettingError(ConfigIssue(("at_least",), rule, self.at_least))
        return self

    def margins(self, value: float) -> Iterator[tuple[str, float, float]]:
        """Yields the name, the value and the violation of each bound.

        Args:
            value: The metric; NaN if it was not reported. NaN breaks every bound.

        Yields:
            Name (`at least` or `at most`), value and violation. The violation is positive if the bound is broken. It is
            the distance from the bound, divided by the magnitude of the bound (by 1 if the bound is 0), so that
            violations of different metrics can be added.
        """
        for name, bound, sign in (("at least", self.at_least, -1), ("at most", self.at_most, 1)):
            if bound is not None:
                distance = sign * (value - bound) / (abs(bound) or 1.0)
                yield name, bound, math.inf if math.isnan(distance) else distance


Constraints = Mapping[str, Constraint]  # keyed by metric


def violations(constraints: Constraints, metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the violation of every bound as defined in `Constraint.margins`, keyed by `<metric> <bound>`."""
    return {
        f"{name} {bound}": violation
        for name, constraint in constraints.items()
        for bound, _, violation in constraint.margins(metrics.get(name, math.nan))
    }


def total_violation(constraints: Constraints, metrics: Mapping[str, float]) -> float:
    """Returns the sum of all violations; 0 if every constraint is met."""
    return sum(max(0.0, violation) for violation in violations(constraints, metrics).values())


def broken(constraints: Constraints, metrics: Mapping[str, float]) -> list[str]:
    """Returns a description of each broken bound, such as `val/worst_class_accuracy 0.7412, at least 0.8`."""
    return [
        f"{name} {metrics[name]:.4g}, {bound} {limit:g}" if name in metrics else f"{name} not measured"
        for name, constraint in constraints.items()
        for bound, limit, violation in constraint.margins(metrics.get(name, math.nan))
        if violation > 0
    ]


def penalized(values: list[float], modes: list[str], violation: float) -> list[float]:
    """Returns the values that early stopping compares: the objectives, or penalty values if a constraint is broken.

    If two trials break constraints, the one with the smaller violation is better, regardless of the objectives
    (constrained domination).

    Args:
        values: The objectives.
        modes: `min` or `max` for each objective.
        violation: The sum of all violations; 0 if every constraint is met.

    References:
        Deb et al. 2002 (NSGA-II), section VI.
    """
    if not violation:
        return values
    worse = INFEASIBLE * (1 + min(violation, 1e6))
    return [-worse if mode == "max" else worse for mode in modes]
