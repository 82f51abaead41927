"""Runs reproduce the recorded results; `python -m tests.golden.record` records them."""

from pathlib import Path

import pytest

from tests.golden.record import TOLERANCE, cpu_model, differences, of_presets, of_study, read
from tests.tiny import TinyStudy


def tolerance(recorded: dict[str, object]) -> float:
    return 0 if recorded["cpu"] == cpu_model() else TOLERANCE


def test_a_run_of_each_preset_gives_the_recorded_metrics(tmp_path: Path) -> None:
    recorded = read("presets")
    assert list(differences(recorded["numbers"], of_presets(tmp_path), tolerance(recorded))) == []


def test_a_study_with_one_slot_gives_the_recorded_metrics_and_decisions_and_leaderboard(tiny: TinyStudy) -> None:
    recorded = read("study")
    assert list(differences(recorded["numbers"], of_study(tiny.home), tolerance(recorded))) == []


@pytest.mark.parametrize(
    ("recorded", "now", "allowed", "count"),
    [
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.0 + 1e-5]}, 1e-4, 0),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.0 + 1e-15]}, 0, 1),
        ({"a": [1.0, 2.0]}, {"a": [1.1, 2.2]}, 1e-4, 2),
        ({"a": 1.0}, {"a": float("nan")}, 1e-4, 1),
        ({"a": "pruned"}, {"a": "finished"}, 1e-4, 1),
        ({"a": 3}, {"a": 4}, 10, 1),
        ({"a": [1.0]}, {"a": [1.0, 2.0]}, 1e-4, 1),
        ({"a": 1.0}, {"b": 1.0}, 1e-4, 1),
    ],
)
def test_all_differences_between_two_records_are_listed(
    recorded: object, now: object, allowed: float, count: int
) -> None:
    assert len(list(differences(recorded, now, allowed))) == count
