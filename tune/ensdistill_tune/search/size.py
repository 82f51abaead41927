"""How many different settings a search space holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ensdistill_tune.search.hyperparameter import Hyperparameter, as_list
from ensdistill_tune.search.search_space import topological_order

CONTINUOUS = ("uniform", "log_uniform")  # ways to draw a number between two; all other ways have finitely many values


@dataclass(frozen=True)
class SearchSpaceSize:
    """Of a search space; what conditions exclude is not counted."""

    axes: int
    continuous: int  # how many of them have a range of numbers
    combinations: int  # of the values of all others

    def __str__(self) -> str:
        axes = f"{self.axes} {'axis' if self.axes == 1 else 'axes'}"
        if not self.continuous:
            return f"{axes}: {self.combinations:,} different settings"
        finite = self.axes - self.continuous
        rest = f", {finite} with {self.combinations:,} combinations" if finite else ""
        return f"{axes}: {self.continuous} continuous{rest}"


def size_of(search: Mapping[str, Hyperparameter]) -> SearchSpaceSize:
    """Counts; axes whose conditions do not hang together multiply."""
    continuous = sum(axis.kind in CONTINUOUS for axis in search.values())
    finite = {name: axis for name, axis in search.items() if axis.kind not in CONTINUOUS}
    order = topological_order(finite)
    families = [[name for name in order if name in family] for family in _families(finite)]
    return SearchSpaceSize(len(search), continuous, prod(_count(finite, family, {}) for family in families))


def distinct(values: Iterable[Any]) -> list[Any]:
    """The values without repetition, in their order; they need not be hashable. 1, 1.0 and true are three."""
    found: list[Any] = []
    for value in values:
        if not any(value == other and type(value) is type(other) for other in found):
            found.append(value)
    return found


def _families(search: Mapping[str, Hyperparameter]) -> list[set[str]]:
    """Axes that hang together by their conditions."""
    families: list[set[str]] = []
    for name, axis in search.items():
        own = {name, *axis.when}
        related = [family for family in families if family & own]
        families = [family for family in families if not family & own] + [own.union(*related)]
    return families


def _count(search: Mapping[str, Hyperparameter], names: Sequence[str], chosen: dict[str, Any]) -> int:
    """Settings of these axes, in the order of their conditions, given the values of earlier ones."""
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
