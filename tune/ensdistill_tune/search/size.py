"""Number of distinct combinations of values in a search space."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ensdistill_tune.search.hyperparameter import Hyperparameter, as_list
from ensdistill_tune.search.search_space import topological_order

CONTINUOUS = ("uniform", "log_uniform")  # all other kinds have a finite number of values


@dataclass(frozen=True)
class SearchSpaceSize:
    """Size of a search space. Combinations excluded by conditions are not counted.

    Attributes:
        axes: Number of hyperparameters.
        continuous: Number of hyperparameters with a continuous range.
        combinations: Number of value combinations of the other hyperparameters.
    """

    axes: int
    continuous: int
    combinations: int

    def __str__(self) -> str:
        axes = f"{self.axes} {'axis' if self.axes == 1 else 'axes'}"
        if not self.continuous:
            return f"{axes}: {self.combinations:,} different settings"
        finite = self.axes - self.continuous
        rest = f", {finite} with {self.combinations:,} combinations" if finite else ""
        return f"{axes}: {self.continuous} continuous{rest}"


def size_of(search: Mapping[str, Hyperparameter]) -> SearchSpaceSize:
    """Returns the size of a search space.

    Args:
        search: The hyperparameters, keyed by name.
    """
    continuous = sum(axis.kind in CONTINUOUS for axis in search.values())
    finite = {name: axis for name, axis in search.items() if axis.kind not in CONTINUOUS}
    order = topological_order(finite)
    families = [[name for name in order if name in family] for family in _families(finite)]
    return SearchSpaceSize(len(search), continuous, prod(_count(finite, family, {}) for family in families))


def distinct(values: Iterable[Any]) -> list[Any]:
    """Returns the values without repetitions, in the original order.

    Args:
        values: The values, which need not be hashable; 1, 1.0 and True count as three different values.
    """
    found: list[Any] = []
    for value in values:
        if not any(value == other and type(value) is type(other) for other in found):
            found.append(value)
    return found


def _families(search: Mapping[str, Hyperparameter]) -> list[set[str]]:
    """Returns the groups of hyperparameters connected by conditions; the counts of all groups are multiplied."""
    families: list[set[str]] = []
    for name, axis in search.items():
        own = {name, *axis.when}
        related = [family for family in families if family & own]
        families = [family for family in families if not family & own] + [own.union(*related)]
    return families


def _count(search: Mapping[str, Hyperparameter], names: Sequence[str], chosen: dict[str, Any]) -> int:
    """Returns the number of value combinations of topologically ordered hyperparameters, given the chosen values."""
    if not names:
        return 1
    (name, *rest), axis = names, search[names[0]]
    if not axis.is_active(chosen):
        return _count(search, rest, chosen)
    asked = distinct(v for other in rest for v in as_list(search[other].when.get(name, [])))
    others = _how_many(axis) - len(asked)
    counts = [_count(search, rest, {**chosen, name: value}) for value in asked]
    return sum(counts) + (others * _count(search, rest, {**chosen, name: object()}) if others else 0)


def _how_many(axis: Hyperparameter) -> int:
    if axis.kind == "integer":
        low, high = axis.values
        return int(high - low + 1)
    return len(distinct(axis.values))
