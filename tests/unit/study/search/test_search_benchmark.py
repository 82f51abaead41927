"""The benchmark of searchers: rows as points, outcomes, and stored tables."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.benchmarks.curve_table import CurveTable
from tests.benchmarks.learning_curves import TASKS, Task
from tests.benchmarks.row_points import RowPoints
from tests.benchmarks.search_speed import judge, random_search
from tests.benchmarks.table_search import WAYS, Search

AXES = {
    "lr": {"kind": "log_uniform", "values": [0.01, 1]},
    "kind": {"kind": "choice", "values": ["none", "ema"]},
    "decay": {"kind": "uniform", "values": [0, 1]},
}
ROWS = [
    {"lr": 0.01, "kind": "none"},
    {"lr": 0.1, "kind": "ema", "decay": 0.9},
    {"lr": 1.0, "kind": "ema", "decay": 0.1},
]


@pytest.mark.parametrize(
    ("suggested", "used", "expected"),
    [
        ({"lr": 0.02, "kind": "none"}, (), 0),
        ({"lr": 0.02, "kind": "none"}, (0,), 1),  # 0.35 + 1 + 0.4; row 2: 0.85 + 1 + 0.4
        ({"lr": 0.3, "kind": "ema", "decay": 0.2}, (), 2),  # 0.26 + 0.1; row 1: 0.24 + 0.7
        ({"lr": 0.1, "kind": "ema", "decay": 0.4}, (), 1),  # 0.5; row 2: 0.5 + 0.3
    ],
)
def test_the_nearest_unused_row_equals_the_row_determined_by_hand(
    suggested: dict[str, float], used: tuple[int, ...], expected: int
) -> None:
    assert RowPoints(AXES, ROWS).nearest(suggested, used) == expected


def table_of(first: list[float], second: list[float], epochs: int = 2) -> CurveTable:
    """Returns a table of constant curves with these values for the two training seeds."""
    ends = np.array([first, second]).T
    curves = np.repeat(ends[:, :, None], epochs, axis=2)
    return SimpleNamespace(curves=curves, truth=ends.mean(1), epochs=epochs, settings=first)


def test_the_outcome_of_a_search_equals_the_outcome_computed_by_hand() -> None:
    # Random search with benchmark seed 0 trains three of these rows. The story reaches the best row, hence the target.
    table = table_of([0.5, 0.1, 0.4, 0.3, 0.2, 0.6], [0.5, 0.7, 0.4, 0.25, 0.3, 0.6])
    outcome = judge([(2, 0), (4, 1), (6, 4)], table, seed=0, trials=3)
    # Candidates by the first seed: rows 1, 4, 0; row 4 is best for the second seed (0.3). Means: 0.4, 0.25, 0.5.
    assert outcome.epochs <= 4 / 6
    assert outcome.regret == 0.0  # the lowest mean of the table is that of row 4
    assert outcome.false_winner == 1.0


def test_a_search_that_misses_the_target_is_charged_its_whole_epoch_budget() -> None:
    table = table_of([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    best = min(row for _, row in random_search(table, 0, 2))
    outcome = judge([(2, 2), (40, best)], table, seed=0, trials=2)  # reached only after the budget of 4 epochs
    assert outcome.epochs == 1.0
    assert outcome.regret == pytest.approx(0.2)


@pytest.mark.parametrize("name", TASKS)
def test_stored_curves_match_their_search_space(name: str) -> None:
    task = Task(name)
    assert list(task.missing(0)) == []  # raises an error if a row has other settings
    assert len({(row["place"], row["seed"]) for row in task.rows()}) == len(task.rows())
    assert np.isfinite(CurveTable(task).curves).all()


def test_a_search_trains_each_row_once_within_its_budget_and_is_reproducible() -> None:
    table = CurveTable(Task("four_settings"))
    searches = [Search(WAYS["tpe + asha"], table, seed=3, trials=5) for _ in range(2)]
    stories = [one.run() for one in searches]
    rows = [row for _, row in stories[0]]
    assert stories[0] == stories[1]
    assert len(set(rows)) == len(rows)
    assert searches[0].trained < (5 + 2) * table.epochs  # two trials may be running when the budget is spent
