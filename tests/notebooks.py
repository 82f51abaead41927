"""Executes the notebooks of `docs/` in a temporary folder.

    python -m tests.notebooks

This command also writes the outputs into the notebooks. `tests/end_to_end/test_notebooks.py` executes the notebooks
without writing.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))


def execute(file: Path, folder: Path) -> nbformat.NotebookNode:
    """Returns a notebook with the outputs of a run in a folder; a failing cell raises nbclient's CellExecutionError."""
    notebook = nbformat.read(file, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", coalesce_streams=True, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # execution times
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main() -> int:
    """Writes the outputs of all notebooks."""
    for file in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(file, Path(folder)), file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
