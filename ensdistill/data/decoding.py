"""Decodes images in several threads, because Pillow releases the GIL while it decodes and resizes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ensdistill.data.image_files import FRAMES, SHALLOW, ImageError, Resize, quiet
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.progress_bar import progress
from ensdistill.runtime.text import SHOWN, counted, listed

if TYPE_CHECKING:
    import numpy as np

    from ensdistill.data.entries import Entry

    Write = Callable[[int, np.ndarray], object]

AT_ONCE = 64  # number of images that a thread decodes in one task
MANY = 5000  # a progress bar is shown only for more images than this
_HINTS = {FRAMES: "save each frame as a separate file to use all frames", SHALLOW: "save them with 8 bits"}


@dataclass(frozen=True)
class ImageForm:
    """The shape to which all images of a source are converted, and how they are resized.

    Attributes:
        shape: (C,H,W).
        resize: How an image with a different aspect ratio is fitted to the shape.
    """

    shape: tuple[int, int, int]
    resize: Resize


@dataclass
class Findings:
    """Problems found during decoding.

    Attributes:
        broken: Names of unreadable images, keyed by cause.
        remarks: Names of unusual images, keyed by remark.
    """

    broken: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    remarks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def refuse(self) -> None:
        """Raises DataError with one line per cause if images could not be read."""
        lines = [
            f"{counted(len(names), 'image')} cannot be read: {cause}: {listed(names)}"
            for cause, names in self.broken.items()
        ]
        more = [f"and {len(lines) - SHOWN} more causes"] if len(lines) > SHOWN else []
        if lines:
            raise DataError("\n".join(f"data.path: {line}" for line in [*lines[:SHOWN], *more]))

    def warnings(self) -> Iterator[ConfigIssue]:
        """Yields a warning for each remark."""
        for remark, names in self.remarks.items():
            rule = f"{counted(len(names), 'file')} with {remark}: {listed(names)}"
            yield ConfigIssue(("data", "path"), rule, hint=_HINTS.get(remark))


def decode(entries: Sequence[Entry], form: ImageForm, write: Write) -> Findings:
    """Decodes images and passes the pixels of each image to a function.

    Args:
        entries: The images.
        form: Shape of the decoded images, and how they are resized.
        write: Called from several threads with the index and the uint8 pixels (C,H,W) of each image.

    Returns:
        The problems, in the order of the images. `write` is not called for unreadable images.
    """
    found, starts = Findings(), range(0, len(entries), AT_ONCE)

    def work(start: int) -> list[tuple[str, str, str]]:
        numbers = range(start, min(start + AT_ONCE, len(entries)))
        return [row for n in numbers for row in _decode_one(entries[n], form, n, write)]

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")
    shown = progress("decoding images", len(entries)) if len(entries) > MANY else nullcontext(_no_progress)
    try:
        with quiet(), shown as advance:
            for start, rows in zip(starts, pool.map(work, starts), strict=True):
                for kind, what, name in rows:
                    getattr(found, kind)[what].append(name)
                advance(min(start + AT_ONCE, len(entries)), "")
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _no_progress(done: int, words: str) -> None:
    """Shows nothing."""


def _decode_one(entry: Entry, form: ImageForm, number: int, write: Write) -> Iterator[tuple[str, str, str]]:
    """Writes one image; for each problem, yields the `Findings` field, the cause or remark, and the image name."""
    try:
        read = entry.read(form.shape, form.resize)
    except ImageError as error:
        yield "broken", error.cause, error.name
        return
    write(number, read.pixels)
    for remark in read.remarks:
        yield "remarks", remark, entry.name
