"""The images of a source before decoding, with their labels, grouped by split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ensdistill.data.part_names import PART_NAMES
from ensdistill.errors import ConfigIssue

if TYPE_CHECKING:
    from ensdistill.data.image_files import Read, Resize

PARTS = tuple(PART_NAMES)  # the order of the splits in a store


class Entry(Protocol):
    """One image: a file, or an item of a data set."""

    @property
    def name(self) -> str:
        """Name of the image in messages."""

    @property
    def stamp(self) -> str:
        """String that changes when the image changes, for example the file size and modification time."""

    def sides(self) -> tuple[int, int]:
        """Returns the width and height of the image; (0, 0) if they are unknown."""

    def read(self, shape: tuple[int, int, int], resize: Resize) -> Read:
        """Returns the pixels as uint8 with the given shape (C,H,W); may be called from several threads.

        Raises:
            ImageError: The image cannot be read.
        """


@dataclass
class PartEntries:
    """The images of one split.

    Attributes:
        entries: The images.
        labels: Labels of the images, from 0; -1 for an image without a label.
    """

    entries: list[Entry] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, entry: Entry, label: int) -> None:
        """Adds one image and its label."""
        self.entries.append(entry)
        self.labels.append(label)


@dataclass(frozen=True)
class FoundEntries:
    """All images of a source.

    Attributes:
        parts: The images, keyed by split; `train` always exists.
        class_names: Name of each class.
        origin: Path or other name of the source; included in the hash that names a store.
        warnings: Warnings about files that are not used.
    """

    parts: dict[str, PartEntries]
    class_names: tuple[str, ...]
    origin: str
    warnings: Sequence[ConfigIssue] = ()

    def all(self) -> list[Entry]:
        """Returns the images of all splits in the order of `PARTS`."""
        return [entry for part in PARTS if part in self.parts for entry in self.parts[part].entries]
