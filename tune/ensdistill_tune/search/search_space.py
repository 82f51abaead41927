"""A search space: hyperparameters keyed by the dotted names of settings, some with conditions on others."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ensdistill_tune.search.hyperparameter import Hyperparameter, as_list

Sampled = dict[str, Any]  # values, keyed by the dotted names of hyperparameters


@dataclass(frozen=True)
class SearchSpace:
    """Hyperparameters, keyed by the dotted names of settings.

    Attributes:
        axes: The hyperparameters, in the order of the study file.
    """

    axes: Mapping[str, Hyperparameter]

    @cached_property
    def order(self) -> list[str]:
        """Names in topological order of their conditions; names with circular conditions are omitted."""
        return topological_order(self.axes)

    def draw(self, value: Callable[[str, Hyperparameter], Any]) -> Sampled:
        """Returns one sample of the hyperparameters whose conditions are met.

        Args:
            value: Function that returns a value, given the name and the definition of a hyperparameter.
        """
        sampled: Sampled = {}
        for name in self.order:
            if self.axes[name].is_active(sampled):
                sampled[name] = value(name, self.axes[name])
        return sampled

    def example(self, wanted: Mapping[str, Any]) -> Sampled:
        """Returns one complete sample that contains these values and meets their conditions.

        Args:
            wanted: Values, keyed by hyperparameter name.
        """
        allowed = {name: [value] for name, value in wanted.items()}
        for name in reversed(self.order):
            if name in allowed:
                for other, values in self.axes[name].when.items():
                    allowed[other] = [v for v in as_list(values) if v in allowed.get(other, as_list(values))]
        return self.draw(lambda name, axis: next(iter(allowed.get(name, [])), axis.values[0]))

    def combinations(self) -> Iterator[Sampled]:
        """Yields all combinations, if there are finitely many; the last hyperparameter varies fastest."""
        return _combinations(self.axes, self.order, {})

    def grid_cell(self, index: int) -> Sampled:
        """Returns a combination of the `grid` hyperparameters; the index wraps around after the last combination."""
        grids = {name: axis.values for name, axis in self.axes.items() if axis.kind == "grid"}
        index %= math.prod(len(values) for values in grids.values())
        cell: Sampled = {}
        for name, values in reversed(grids.items()):
            index, n = divmod(index, len(values))
            cell[name] = values[n]
        return cell


def topological_order(axes: Mapping[str, Hyperparameter]) -> list[str]:
    """Returns the names in topological order of their conditions; names with circular conditions are omitted."""
    order: list[str] = []
    while ready := [n for n in axes if n not in order and all(o in order or o not in axes for o in axes[n].when)]:
        order += ready
    return order


def _combinations(axes: Mapping[str, Hyperparameter], order: Sequence[str], chosen: Sampled) -> Iterator[Sampled]:
    if not order:
        yield chosen
        return
    name, rest = order[0], order[1:]
    if not axes[name].is_active(chosen):
        yield from _combinations(axes, rest, chosen)
        return
    for value in axes[name].finite_values or []:
        yield from _combinations(axes, rest, {**chosen, name: value})
