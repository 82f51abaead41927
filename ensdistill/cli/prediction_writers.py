"""Writes predictions as a table, CSV or JSON while the images are read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ensdistill.cli.predict import ImagePrediction
from ensdistill.runtime.files import atomic_write
from ensdistill.runtime.text import printable

if TYPE_CHECKING:
    from ensdistill.export.classifier import Classifier

BLOCK = 1000  # number of rows in one table; a longer list of images is written as several tables
WIDE = 10_000  # table width outside a terminal: names do not wrap, so grep finds each image on one line
IN_TABLE = 2  # number of classes per image in a table


def write_csv(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int | None, to: IO[str]) -> None:
    """Writes one line per image: the file, the class, its probability, and then the probability of every class.

    With `top`, only the next most likely classes follow, in descending order: `class_2`, `probability_2`, ...
    """
    lines = csv.writer(to, lineterminator="\n")
    further = range(2, min(top or 1, len(class_names)) + 1)
    names = [f"p({name})" for name in class_names] if top is None else []
    ranks = [(f"class_{n}", f"probability_{n}") for n in further]
    lines.writerow(["file", "class", "probability", *chain.from_iterable(ranks), *names])
    for answer in answers:
        figures = [f"{p:.6g}" for p in answer.probabilities]
        best = chain.from_iterable((class_names[k], figures[k]) for k in answer.top(1 + len(further)))
        lines.writerow([answer.file, *best, *(figures if top is None else [])])


def write_json(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int | None, to: IO[str]) -> None:
    """Writes a list with one line per image: `file`, `class`, `probability`, and `probabilities` keyed by class.

    With `top`, `probabilities` contains only the most likely classes, in descending order of probability.
    """
    to.write("[")
    for n, answer in enumerate(answers):
        shown = range(len(class_names)) if top is None else answer.top(top)
        figures = {class_names[k]: float(f"{answer.probabilities[k]:.6g}") for k in shown}
        (best,) = answer.top(1)
        first = {"file": answer.file, "class": class_names[best], "probability": figures[class_names[best]]}
        to.write(("," if n else "") + "\n" + json.dumps(first | {"probabilities": figures}, allow_nan=False))
    to.write("\n]\n")


def write_table(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int | None, to: IO[str]) -> None:
    """Writes tables of up to BLOCK rows, one row per image: the most likely classes with their probabilities."""
    count, rows = min(top or IN_TABLE, len(class_names)), iter(answers)
    width = None if to.isatty() else WIDE
    screen = Console(file=to, width=width, highlight=False, markup=False, emoji=False)  # names may look like markup
    first = True
    while (block := list(islice(rows, BLOCK))) or first:
        screen.print(_table(block, class_names, count))
        first = False


def _table(block: Sequence[ImagePrediction], class_names: Sequence[str], count: int) -> Table:
    """Returns the table for one block of predictions."""
    table = Table()
    table.add_column("file", overflow="fold")
    for _ in range(count):
        table.add_column("class", overflow="fold")
        table.add_column("probability", justify="right")
    for answer in block:
        best = [(printable(class_names[k]), f"{answer.probabilities[k]:.4f}") for k in answer.top(count)]
        table.add_row(printable(answer.file), *chain.from_iterable(best))
    return table


def write_predictions(
    answers: Iterable[ImagePrediction], classifier: Classifier, form: str | None, top: int | None, out: str | None
) -> None:
    """Writes the predictions atomically to a file, or to standard output.

    Args:
        answers: The predictions.
        classifier: The classifier, which provides the class names.
        form: Key of WRITERS; if None, the suffix .csv or .json determines the format, and the default is a table.
        top: Number of most likely classes per image; None for all classes, or two in a table.
        out: The file; None for standard output.
    """
    form = form or {".csv": "csv", ".json": "json"}.get(Path(out or "").suffix, "table")

    def write(to: IO[str]) -> None:
        WRITERS[form](answers, classifier.class_names, top, to)

    def write_file(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            write(file)

    if out:
        atomic_write(out, write_file)
    else:
        write(sys.stdout)


WRITERS = {"table": write_table, "csv": write_csv, "json": write_json}
