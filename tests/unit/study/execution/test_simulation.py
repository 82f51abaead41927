"""Studies on a faulty disk end like undisturbed studies; `make chaos` simulates a thousand seeds."""

from pathlib import Path

import pytest

from tests.simulation import injected, simulate

SEEDS = 30


@pytest.mark.parametrize("first", range(0, SEEDS, 5))
def test_a_study_on_a_faulty_disk_ends_like_an_undisturbed_study(first: int, tmp_path: Path) -> None:
    count = 0
    for seed in range(first, first + 5):
        (tmp_path / str(seed)).mkdir()
        count += injected(simulate(seed, tmp_path / str(seed)))
    assert count >= 5
