"""Definition of a searched setting: its distribution and its condition."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from ensdistill.settings.base import Settings, setting

KINDS = ("choice", "grid", "uniform", "log_uniform", "integer")


class Hyperparameter(Settings):
    """A searched setting: exactly one distribution and an optional condition."""

    choice: list[Any] | None = setting(None, "Values, one of which is chosen for each trial.", min_length=1)
    grid: list[Any] | None = setting(
        None, "Values tried in turn, independently of the searcher's suggestions.", min_length=1
    )
    uniform: list[float] | None = setting(
        None, "Range [low, high] of a uniformly distributed number.", min_length=2, max_length=2
    )
    log_uniform: list[float] | None = setting(
        None,
        "Range [low, high] of a positive number with a uniformly distributed logarithm.",
        min_length=2,
        max_length=2,
    )
    integer: list[int] | None = setting(
        None, "Range [low, high] of an integer, including both ends.", min_length=2, max_length=2
    )
    when: dict[str, Any] = setting(
        {}, "Condition: names of other settings, each mapped to the value or values for which this setting is active."
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Hyperparameter":
        ways = [way for way in KINDS if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}, got {len(ways)}")
        if not self.is_categorical:
            low, high = getattr(self, ways[0])
            if low >= high:
                raise ValueError(f"{ways[0]}: the first number must be smaller than the second, got [{low}, {high}]")
            if ways[0] == "log_uniform" and low <= 0:
                raise ValueError(f"log_uniform: both numbers must be above 0, got [{low}, {high}]")
        return self

    @property
    def kind(self) -> str:
        """Kind of the distribution: `choice`, `grid`, `uniform`, `log_uniform` or `integer`."""
        return next(way for way in KINDS if getattr(self, way) is not None)

    @property
    def is_categorical(self) -> bool:
        """True if the values are listed."""
        return self.choice is not None or self.grid is not None

    @property
    def values(self) -> list[Any]:
        """Listed values, or both ends of the range."""
        return list(getattr(self, self.kind))

    @property
    def finite_values(self) -> list[Any] | None:
        """All possible values; None for a range of real numbers."""
        if self.is_categorical:
            return self.values
        return list(range(self.values[0], self.values[1] + 1)) if self.kind == "integer" else None

    def from_unit_interval(self, share: float) -> Any:
        """Returns a quantile of the distribution.

        Args:
            share: Probability of a smaller value, in [0, 1).
        """
        if (every := self.finite_values) is not None:
            return every[int(share * len(every))]
        low, high = self.values
        if self.kind == "uniform":
            return low + share * (high - low)
        return min(high, math.exp(math.log(low) + share * (math.log(high) - math.log(low))))

    def contains(self, value: Any) -> bool:
        """Returns whether a value is in the domain of the hyperparameter."""
        if (every := self.finite_values) is not None:
            return any(value == other and type(value) is type(other) for other in every)
        return isinstance(value, int | float) and self.values[0] <= value <= self.values[1]

    def is_active(self, chosen: Mapping[str, Any]) -> bool:
        """Returns whether the values of the other hyperparameters meet the condition of this one."""
        return all(name in chosen and chosen[name] in as_list(wanted) for name, wanted in self.when.items())


def as_list(value: Any) -> list[Any]:
    """Returns a list unchanged, and any other value as a one-element list."""
    return value if isinstance(value, list) else [value]
