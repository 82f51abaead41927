"""Images listed in a table: a CSV or Parquet file with a path and a label in each row."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ensdistill.data.entries import FoundEntries, PartEntries
from ensdistill.data.entry_source import EntrySource
from ensdistill.data.image_files import ImageFile
from ensdistill.data.names import class_name, own_path
from ensdistill.data.part_names import numbered, part_of, unknown_labels
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.files import user_path
from ensdistill.runtime.optional import need
from ensdistill.runtime.text import listed, printable
from ensdistill.settings.base import setting

Row = tuple[str, str, str]  # path, label, split


class Table(EntrySource):
    """Image files listed in a CSV or Parquet file; each row has a path, a label and, optionally, a split.

    If `split_column` is set, this column assigns each row to a split, by one of the usual names (train, val, test,
    unlabeled, ...). Otherwise, splits are drawn from all labeled rows. Rows without a label are unlabeled images.
    """

    kind: Literal["table"] = "table"
    path: str = setting(..., "CSV file (with a header line) or Parquet file.", file=True, min_length=1)
    root: str = setting("", "Base folder for relative image paths; empty for the folder of the table.", file=True)
    image_column: str = setting("path", "Name of the column that contains the image paths.", min_length=1)
    label_column: str = setting("label", "Name of the column that contains class names or numbers.", min_length=1)
    split_column: str | None = setting(
        None, "Name of the column that contains the split; null to draw splits from all labeled rows.", min_length=1
    )

    def entries(self) -> FoundEntries:
        """Returns the image files that the table lists.

        Raises:
            DataError: The table cannot be read, a column is missing, or a value is invalid.
        """
        file = own_path(self.path)
        rows, warnings = self._rows(file)
        classes = numbered(label for _, label, part in rows if part == "train")
        root = (user_path(self.root) if self.root else file.parent).resolve()
        parts = defaultdict[str, PartEntries](PartEntries)
        for part in ("validation", "test"):
            unknown_labels([label for _, label, own in rows if own == part], classes, part)
        for path, label, part in rows:
            number = -1 if part == "unlabeled" else classes[class_name(label)]
            parts[part].add(ImageFile(root, path), number)
        own = {name: (f"the {name} rows", len(part.entries)) for name, part in parts.items()}
        issues = (*warnings, *self.ignored(own))
        return FoundEntries(dict(parts), tuple(classes), str(root), issues)

    def _rows(self, file: Path) -> tuple[list[Row], list[ConfigIssue]]:
        parquet = file.suffix.lower() in (".parquet", ".pq")
        try:
            columns, values = _read_parquet(file) if parquet else _read_csv(file)
        except (OSError, ValueError, csv.Error) as error:
            rule = f"{printable(str(file))} is not a readable {'Parquet' if parquet else 'CSV'} file"
            raise DataError(f"data.path: {rule} ({error}); create it again") from error
        wanted = {"image_column": self.image_column, "label_column": self.label_column}
        wanted |= {"split_column": self.split_column} if self.split_column else {}
        for name, column in wanted.items():
            if column not in columns:
                raise DataError(f"data.{name}: no column {column!r}; give one of {listed(columns)}")
        rows = [self._row(n, dict(zip(columns, row, strict=False))) for n, row in enumerate(values, 1)]
        unused = "split" in columns and self.split_column is None
        rule = "the column 'split' of the table is not used"
        issue = ConfigIssue(("data", "split_column"), rule, hint="set data.split_column: split")
        return rows, [issue] if unused else []

    def _row(self, number: int, row: dict[str, str]) -> Row:
        """Returns the path, label and split of a row; raises DataError if the row is incomplete."""
        path, label = row.get(self.image_column, ""), row.get(self.label_column, "")
        given = row.get(self.split_column, "") if self.split_column else "train"
        part = part_of(given)
        if not path:
            raise DataError(f"data.path: row {number} has no {self.image_column}; add it or remove the row")
        if part is None:
            raise DataError(f"data.split_column: row {number} has {given!r}; use train, val, test or unlabeled")
        if label:
            return path, label, part
        if part in ("validation", "test"):
            raise DataError(f"data.path: row {number} of the {part} split has no {self.label_column}; add it")
        return path, label, "unlabeled"


def _read_csv(file: Path) -> tuple[list[str], Iterator[list[str]]]:
    with file.open(newline="", encoding="utf-8-sig") as opened:
        lines = list(csv.reader(opened))
    if not lines:
        raise ValueError("it is empty")
    return [name.strip() for name in lines[0]], ([value.strip() for value in line] for line in lines[1:] if line)


def _read_parquet(file: Path) -> tuple[list[str], Iterator[list[str]]]:
    table = need("pyarrow.parquet", "tune").read_table(file)
    columns = [column.to_pylist() for column in table.columns]
    return table.column_names, ([_as_text(value) for value in row] for row in zip(*columns, strict=True))


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)
