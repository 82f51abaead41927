"""The notebooks of `docs/` run from the first to the last cell and contain the outputs of such a run."""

import re
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import NOTEBOOKS, execute


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_to_the_end_and_reproduces_the_stored_outputs(file: Path, tmp_path: Path) -> None:
    shown, now = nbformat.read(file, as_version=4), execute(file, tmp_path)
    for before, after in zip(shown.cells, now.cells, strict=True):
        if before.cell_type == "code":
            kinds = [{output.output_type for output in cell.outputs} for cell in (before, after)]
            assert kinds[0] == kinds[1], after.source


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_contains_no_machine_specific_path(file: Path) -> None:
    assert not re.findall(r"/(?:root|home|work|tmp|usr|private|Users)/[^\s\"]*", file.read_text())
