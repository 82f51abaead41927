"""The reference of study files describes every column and key that a study writes."""

import csv
import json
import re
from pathlib import Path

from tests.tiny import TinyStudy

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "study-files.md").read_text()


def described(heading: str) -> set[str]:
    """Returns the names in the first column of the table below a heading."""
    table = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_column_of_the_leaderboard_is_described(tiny: TinyStudy) -> None:
    columns = next(csv.reader((tiny.home / "leaderboard.csv").read_text().splitlines()))
    study = json.loads((tiny.home / "study.json").read_text())["study"]
    general = {name for name in columns if not name.startswith("val/")} - set(study["search"])
    assert general <= described("The columns of `leaderboard.csv`")


def test_every_key_of_study_json_is_described(tiny: TinyStudy) -> None:
    assert set(json.loads((tiny.home / "study.json").read_text())) <= described("The keys of `study.json`")


def test_every_key_of_confirmation_json_is_described(tiny: TinyStudy) -> None:
    known = json.loads((tiny.home / "confirmation.json").read_text())
    section = PAGE.split("## The keys of `confirmation.json`")[1].split("\n## ")[0]
    names = {*known, *(name for stage in known["stages"] for name in stage), *known["candidates"][0]} - {"schedule"}
    assert {name for name in names if f"`{name}`" not in section} == set()
