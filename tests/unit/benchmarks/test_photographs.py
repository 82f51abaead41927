"""The comparison of students on CIFAR-10 at 16 pixels: settings, and the tables of recorded students."""

from pathlib import Path

import pytest

from tests.benchmarks import photographs
from tests.benchmarks.csv_rows import append_row


@pytest.mark.parametrize("student", photographs.STUDENTS)
def test_students_differ_only_in_their_preset_and_listed_changes(student: str) -> None:
    config = photographs.config_for(Path("cifar10-jpeg.zip"), student, seed=3)
    reference = photographs.config_for(Path("cifar10-jpeg.zip"), "kd", seed=0)
    assert config.seed == 3
    assert (config.data, config.model, config.teachers) == (reference.data, reference.model, reference.teachers)
    assert (config.training.epochs, config.training.precision) == (120, "bfloat16")
    assert config.teachers.model == config.model


def test_tables_show_means_over_seeds_in_the_order_of_validation_nll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "RECORDS", tmp_path / "photographs.csv")
    metrics = dict.fromkeys(photographs.KEPT, 0.5)
    for student, seed, val, test in (("kd", 0, 1.2, 1.3), ("dist", 0, 1.1, 1.4), ("kd", 1, 1.4, 1.5)):
        found = {"val": metrics | {"nll": val}, "test": metrics | {"nll": test}}
        row = photographs.row_of(student, seed, 100 + seed, found)
        append_row(photographs.RECORDS, photographs.COLUMNS, row)
    first, second = photographs.table("test").splitlines()[2:]
    assert first.startswith("| dist | 1 | 0.500 | 1.400 | ")
    assert second.startswith("| kd | 2 | 0.500 +- 0.000 | 1.400 +- 0.141 | ")
    assert second.endswith("| 100 |")
