"""Base class of data sources whose images must be decoded, and the rule for the default image size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING

from ensdistill.data.decoding import ImageForm
from ensdistill.data.entries import PARTS, Entry, FoundEntries
from ensdistill.data.folders import datasets_folder
from ensdistill.data.image_files import Resize
from ensdistill.data.sizes import OwnSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.data.store import decoded
from ensdistill.runtime.lazy import torch
from ensdistill.runtime.progress_bar import note
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor

    from ensdistill.data.shared_images import SharedImages

SIZES = (224, 192, 160, 128, 96, 64, 32)  # usual side lengths of network inputs, in pixels
SAMPLE = 256  # maximum number of training images from which the default size is derived


class EntrySource(OwnSizes, DataSource):
    """Base class of data sources whose image files or items are decoded once for all processes.

    A subclass defines `entries`. All images are converted to squares of the same size, with three channels.
    """

    size: int | None = setting(
        None,
        "Side length of the square images in pixels; null derives it from the median shorter side of the training "
        "images. The result is the largest of 32, 64, 96, 128, 160, 192 and 224 that is at most the median, or the "
        "median itself if the median is below 32.",
        ge=4,
        le=1024,
    )
    resize: Resize = setting(
        "center_crop",
        "How an image is converted to a square: center_crop crops the longer side at both ends, squash changes the "
        "aspect ratio, and pad adds black at both ends of the shorter side.",
    )

    def entries(self) -> FoundEntries:
        """Returns all images, not yet decoded, with labels and class names.

        Raises:
            DataError: The source cannot be read.
        """
        raise NotImplementedError

    def __call__(self) -> RawData:
        """Returns all images and labels; the decoded images of large data sets are stored in `datasets_folder()`.

        Raises:
            DataError: Images cannot be read; the message lists the unreadable images by cause.
        """
        return self.load(datasets_folder())

    def load(self, datasets: Path) -> RawData:
        """Returns all images and labels.

        Args:
            datasets: Folder for the decoded images of large data sets.

        Raises:
            DataError: Images cannot be read; the message lists the unreadable images by cause.
        """
        found = self.entries()
        side = self.size or self._default_size(found.parts["train"].entries)
        images, findings = decoded(found, ImageForm((3, side, side), self.resize), datasets)
        parts = _split(found, images)
        warnings = (*found.warnings, *findings.warnings())
        others = (parts.get("test"), parts.get("validation"), parts.get("unlabeled"))
        return RawData(parts["train"], found.class_names, *others, warnings=warnings)

    def _default_size(self, entries: Sequence[Entry]) -> int:
        side, middle = default_size(entries)
        note(f"data.size: {side} px, because the median shorter side of the training images is {middle} px")
        return side


def default_size(entries: Sequence[Entry]) -> tuple[int, int]:
    """Returns the default side length of the images, and the median shorter side that determines it.

    Args:
        entries: The training images; at most `SAMPLE` evenly spaced images are examined.

    Returns:
        The default side length and the median, in pixels. The default is the largest of `SIZES` that is at most the
        median, or the median itself (at least 4) if all sizes are larger.
    """
    spaced = range(0, len(entries), max(1, -(-len(entries) // SAMPLE)))
    shorter = [side for n in spaced if (side := min(entries[n].sides()))]
    middle = median_low(shorter) if shorter else SIZES[-1]
    return next((side for side in SIZES if side <= middle), max(4, middle)), middle


def _split(found: FoundEntries, images: Tensor | SharedImages) -> dict[str, Split]:
    """Returns the images of each split; `images` contains the splits one after another, in the order of `PARTS`."""
    labels = [label for name in PARTS if name in found.parts for label in found.parts[name].labels]
    whole, start, parts = Split(images, torch.tensor(labels, dtype=torch.long)), 0, {}
    for name in PARTS:
        if name in found.parts:
            stop = start + len(found.parts[name].labels)
            parts[name], start = whole.take(slice(start, stop)), stop
    return parts
