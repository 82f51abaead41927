"""Rows of the CSV files in which benchmarks record finished trainings."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_rows(file: Path) -> list[dict[str, str]]:
    """Returns the rows of a file; empty if the file is missing."""
    return list(csv.DictReader(file.open())) if file.exists() else []


def append_row(file: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Appends a row to a file, which begins with the names of the columns."""
    new = not file.exists()
    with file.open("a", newline="") as opened:
        writer = csv.DictWriter(opened, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
