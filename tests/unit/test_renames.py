"""No renamed identifier of `docs/renames.tsv` is left in code, settings, options, files and documents."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "renames.tsv"
ROWS = [line.split("\t") for line in TABLE.read_text().splitlines()[1:]]
EVERYWHERE = ("setting", "value", "option", "file", "metric")
WORDS = {"against", "first", "changes"}  # settings that are also English words: searched for as keys
OF_DATA = ("data.train", "data.validation", "data.test", "data.unlabelled")  # also attributes of images


def pattern(old: str, kind: str) -> str | None:
    """Returns the pattern that must not occur; None for an identifier that is an English word."""
    if old in OF_DATA:
        return rf"\b{re.escape(old)}="
    if kind in EVERYWHERE:
        if old in WORDS:
            return rf"^{old}: "
        end = "" if old.endswith("/") else r"(?![\w-])"
        start = r"(?<![\w./-])" if old[0].isalnum() else ""
        return rf"{start}{re.escape(old)}{end}"
    if kind == "module":
        return rf"\b{re.escape(old)}\b(?! import|\.)(?=\s|$)"
    unlike_a_word = "_" in old.strip("_") or re.search(r"[a-z][A-Z]", old)
    return rf"(?<![\w.]){re.escape(old)}\b" if unlike_a_word and "." not in old else None


def files() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        of_interest = name.endswith((".py", ".yaml", ".md", ".toml", ".html")) or name == "Makefile"
        if of_interest and not name.startswith(("docs/renames", "CHANGELOG", "tests/unit/test_renames")):
            yield ROOT / name


def test_no_old_name_of_a_renamed_identifier_remains() -> None:
    texts = {file: file.read_text() for file in files()}
    left = []
    for old, _, kind in ROWS:
        if (wanted := pattern(old, kind)) is None or kind == "state":
            continue
        found = re.compile(wanted, re.MULTILINE)
        left += [
            f"{old} ({kind}) in {file.relative_to(ROOT)}"
            for file, text in texts.items()
            if old in text and found.search(text)
        ]
    assert not left, "\n".join(left)


@pytest.mark.parametrize(
    ("text", "old", "kind"),
    [("x = load_everything(1)", "load_everything", "function"), ("--no-cost", "--no-cost", "option")],
)
def test_an_old_name_of_a_renamed_identifier_is_detected(text: str, old: str, kind: str) -> None:
    assert re.search(pattern(old, kind) or "", text)
