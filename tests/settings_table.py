"""The table of all settings in the README, made from the fields themselves.

`python -m tests.settings_table` writes it there anew; test_docs.py holds that it is up to date.
"""

import re
from pathlib import Path

from pydantic import BaseModel

from ensdistill.config import Config
from ensdistill.settings.validation import settings_table
from ensdistill_tune.study.study_config import StudyConfig

README = Path(__file__).parent.parent / "README.md"
BETWEEN = re.compile(r"(?<=<!-- all settings -->\n).*?(?=<!-- end of all settings -->)", re.DOTALL)
HERE = {"config", "search"}  # of a study: the settings of the second table


def in_markdown() -> str:
    """Both tables: of a student, and of a study."""
    parts = ["\n**Of a student and its teachers** (`ensdistill`, and `config` of a study):\n", _table(Config)]
    return "\n".join([*parts, "\n**Of a study** (`ensdistill-tune`):\n", _table(StudyConfig), ""])


def _table(model: type[BaseModel]) -> str:
    lines = ["| setting | of | default | range | what it is |", "|---|---|---|---|---|"]
    merged: dict[tuple[str, str, str, str], list[str]] = {}
    for row in settings_table(model):
        if row.name not in HERE:
            merged.setdefault((row.name, row.default, row.limits, row.sentence), []).append(row.kind)
    for (name, default, limits, sentence), kinds in merged.items():
        cells = (f"`{name}`", ", ".join(kinds), f"`{default}`", limits, sentence)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def shown() -> str:
    """What the README has."""
    found = BETWEEN.search(README.read_text())
    return found.group() if found else ""


if __name__ == "__main__":
    README.write_text(BETWEEN.sub(lambda _: in_markdown() + "\n", README.read_text()))
