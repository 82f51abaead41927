"""The size of a search space agrees with counting every combination."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.search.search_space import topological_order
from ensdistill_tune.search.size import SearchSpaceSize, size_of
from ensdistill_tune.study.loading import load_study

ROOT = Path(__file__).parents[4]


def counted(search: dict[str, Hyperparameter]) -> int:
    """Counts the combinations of all discrete hyperparameters, without those excluded by conditions."""
    finite = [name for name in topological_order(search) if search[name].kind not in ("uniform", "log_uniform")]
    values = []
    for name in finite:
        axis = search[name]
        values.append(list(range(axis.values[0], axis.values[1] + 1)) if axis.kind == "integer" else axis.values)
    found = set()
    for row in itertools.product(*values):
        sampled: dict[str, Any] = {}
        for name, value in zip(finite, row, strict=True):
            if search[name].is_active(sampled):
                sampled[name] = value
        found.add(repr(sampled))
    return len(found)


NESTED = {
    "c": Hyperparameter(choice=["x", "y", "y"], when={"b": [2, 3]}),  # a repeated value counts once
    "a": Hyperparameter(choice=[0, 1, 2]),
    "b": Hyperparameter(integer=[1, 6], when={"a": [1, 2]}),
    "d": Hyperparameter(choice=["p", "q", "r"], when={"a": 1, "c": "y"}),
    "e": Hyperparameter(integer=[3, 4]),
    "f": Hyperparameter(choice=[1, 2], when={"e": 4}),
}


@pytest.mark.parametrize(
    "search",
    [
        {"a": Hyperparameter(choice=[1, 2, 3])},
        {"a": Hyperparameter(choice=[1, 2, 3]), "b": Hyperparameter(integer=[-1, 4])},
        NESTED,
        NESTED | {"g": Hyperparameter(uniform=[0, 1]), "h": Hyperparameter(choice=["", "z"], when={"c": "x", "e": 3})},
        load_study(ROOT / "search_spaces" / "averaging.yaml").search,
    ],
)
def test_every_setting_is_counted_once(search: dict[str, Hyperparameter]) -> None:
    assert size_of(search).combinations == counted(search)


def test_combinations_of_independent_hyperparameters_are_counted_without_enumeration() -> None:
    search = {}
    for n in range(30):
        search |= {
            f"a{n}": Hyperparameter(choice=[0, 1]),
            f"b{n}": Hyperparameter(integer=[1, 10**6], when={f"a{n}": 1}),
        }
    assert size_of(search) == SearchSpaceSize(60, 0, (1 + 10**6) ** 30)


def test_a_space_without_ranges_has_a_finite_number_of_settings() -> None:
    assert (
        str(size_of({"a": Hyperparameter(choice=[1, 2, 3]), "b": Hyperparameter(integer=[1, 1000])}))
        == "2 axes: 3,000 different settings"
    )


def test_continuous_hyperparameters_are_counted_but_not_included_in_the_combinations() -> None:
    search = {
        "a": Hyperparameter(choice=[1, 2]),
        "b": Hyperparameter(log_uniform=[1, 9]),
        "c": Hyperparameter(uniform=[0, 1], when={"a": 1}),
    }
    assert str(size_of(search)) == "3 axes: 2 continuous, 1 with 2 combinations"
    assert str(size_of({"b": search["b"]})) == "1 axis: 1 continuous"
