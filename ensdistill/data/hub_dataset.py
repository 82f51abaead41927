"""A data set that the Hugging Face library `datasets` saved to disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from ensdistill.data.entries import FoundEntries, PartEntries
from ensdistill.data.entry_source import EntrySource
from ensdistill.data.image_files import Read, Resize, open_image, read_bytes
from ensdistill.data.names import class_name, own_path
from ensdistill.data.part_names import numbered, part_of, unknown_labels
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.optional import need
from ensdistill.runtime.text import listed, printable
from ensdistill.settings.base import setting


class HubDataset(EntrySource):
    """A data set that `datasets` wrote with `save_to_disk`; the splits have the usual names (train, val, test, ...).

    Existing splits are used in full; missing splits are drawn from the training split. Nothing is downloaded.
    """

    kind: Literal["hub_dataset"] = "hub_dataset"
    path: str = setting(..., "Folder written by `save_to_disk`.", file=True, min_length=1)
    image_column: str = setting("image", "Name of the column that contains the images.", min_length=1)
    label_column: str = setting("label", "Name of the column that contains the labels.", min_length=1)

    def entries(self) -> FoundEntries:
        """Returns the rows of all splits.

        Raises:
            ConfigError: The library `datasets` is not installed.
            DataError: The folder cannot be read, or a column is missing.
        """
        folder, datasets = own_path(self.path), need("datasets", "hub")
        try:
            found = datasets.load_from_disk(str(folder))
        except Exception as error:  # the library raises many different errors
            rule = f"{printable(str(folder))} is not a data set written by the library datasets ({error})"
            raise DataError(f"data.path: {rule}; write it with save_to_disk") from error
        tables = dict(found) if isinstance(found, Mapping) else {"train": found}
        known = self._known(tables)
        if "train" not in known:
            raise DataError(f"data.path: no split named train (available: {listed(tables)}); rename the training split")
        classes = {name: number for number, name in enumerate(self._class_names(known["train"]))} or numbered(
            self._texts(known["train"])
        )
        parts = {part: self._part(part, table, classes, datasets) for part, table in known.items()}
        own = {name: (f"the {name} split", len(part.entries)) for name, part in parts.items()}
        warnings = [*self._left_out(tables), *self.ignored(own)]
        return FoundEntries(parts, tuple(classes), f"{folder.resolve()} {_stamp(folder)}", warnings)

    def _known(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the table of each split; raises DataError if the names of two tables denote the same split."""
        names: dict[str, str] = {}
        for name in tables:
            part = part_of(name)
            if part in names:
                both = listed([names[part], name])
                raise DataError(f"data.path: {both} are the same split ({part}); keep one of them")
            if part:
                names[part] = name
        return {part: tables[name] for part, name in names.items()}

    def _part(self, part: str, table: Any, classes: Mapping[str, int], datasets: Any) -> PartEntries:
        column = table.features.get(self.image_column)
        if not isinstance(column, datasets.Image):
            raise DataError(
                f"data.image_column: {self.image_column!r} of the {part} split must be a column of images; "
                f"the columns of the split are {listed(table.column_names)}"
            )
        undecoded = table.cast_column(self.image_column, datasets.Image(decode=False))
        if part == "unlabeled":
            labels = [-1] * len(table)
        else:
            texts = self._texts(table)
            unknown_labels(texts, dict(classes), part)
            labels = [classes[class_name(text)] for text in texts]
        return PartEntries([HubItem(undecoded, self.image_column, part, n) for n in range(len(table))], labels)

    def _class_names(self, table: Any) -> list[str]:
        return [class_name(name) for name in getattr(table.features.get(self.label_column), "names", None) or ()]

    def _texts(self, table: Any) -> list[str]:
        """Returns the labels of a split as class names; numbers are decoded with the class names of the split."""
        if self.label_column not in table.column_names:
            raise DataError(
                f"data.label_column: no column {self.label_column!r}; give one of {listed(table.column_names)}"
            )
        names, values = self._class_names(table), list(table[self.label_column])
        if any(value is None or (names and not 0 <= value < len(names)) for value in values):
            raise DataError(f"data.label_column: {self.label_column!r} has rows without a label; remove these rows")
        return [names[value] if names else str(value) for value in values]

    def _left_out(self, tables: Mapping[str, Any]) -> list[ConfigIssue]:
        unknown = [name for name in tables if part_of(name) is None]
        rule = f"splits that are not used: {listed(unknown)}"
        return [ConfigIssue(("data", "path"), rule, hint="name them train, val, test or unlabeled")] if unknown else []


@dataclass(frozen=True)
class HubItem:
    """One image in a Hugging Face data set.

    Attributes:
        table: The rows of the split, with undecoded images.
        column: Name of the image column.
        part: Name of the split.
        number: Index of the row, from 0.
    """

    table: Any
    column: str
    part: str
    number: int

    @property
    def stamp(self) -> str:
        """Name of the image column; changes to the files are detected by the hash in the origin of the source."""
        return self.column

    @property
    def name(self) -> str:
        """Name of the image in messages."""
        return f"{self.part}[{self.number}]"

    def sides(self) -> tuple[int, int]:
        """Returns the width and height of the image; (0, 0) if the image cannot be read."""
        try:
            return open_image(BytesIO(self._raw())).size
        except Exception:  # `read` reports the error later
            return 0, 0

    def read(self, shape: tuple[int, int, int], resize: Resize) -> Read:
        """Returns the pixels as uint8 with the given shape (C,H,W).

        Raises:
            ImageError: The image cannot be read.
        """
        return read_bytes(self._raw, shape, resize, self.name)

    def _raw(self) -> bytes:
        image = self.table[self.number][self.column] or {}
        raw: bytes | None = image.get("bytes")
        if raw is None and image.get("path"):
            raw = Path(image["path"]).read_bytes()
        return raw or b""


def _stamp(folder: Path) -> str:
    """Returns a hash of the names, sizes and modification times of all files in the folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    rows = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return sha256(repr(rows).encode(errors="surrogateescape")).hexdigest()
