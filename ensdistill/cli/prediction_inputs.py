"""Images named on a command line: files, folders, zip files, or a list of paths on standard input."""

from __future__ import annotations

import os
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ensdistill.data.image_files import ImageFile
from ensdistill.data.walk import HARMLESS, FoundFiles, by_reason, find_files
from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.progress_bar import progress
from ensdistill.runtime.text import SHOWN, counted, printable

STDIN = "-"  # as the only argument: image paths are read from standard input
MANY = 1000  # up to this number of images, a progress bar would disappear too soon to be useful


@dataclass(frozen=True)
class Images:
    """Images to classify, and the reasons why other files in the given folders and zip files are left out.

    Attributes:
        files: The images, in the order of the arguments.
        left_out: Sentences about files that are hidden or are not images.
        unread: Sentences about paths that may lead to images but cannot be read, such as broken links or unreadable
            folders.
    """

    files: list[ImageFile]
    left_out: list[str]
    unread: list[str]


@dataclass
class PredictionLog:
    """Prints messages about images to standard error immediately, and counts the images.

    Attributes:
        seen: Number of images so far.
        skipped: Number of images that could not be read.
        incomplete: Whether files that may be images were left out.
    """

    seen: int = 0
    skipped: int = 0
    incomplete: bool = False
    _remarks: Counter[str] = field(default_factory=Counter)
    _examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def skip(self, message: str) -> None:
        """Prints the reason why an image is skipped."""
        self.skipped += 1
        print(f"skipped: {printable(message)}", file=sys.stderr)

    def leave_out(self, images: Images) -> None:
        """Prints which files in folders and zip files are left out."""
        self.incomplete |= bool(images.unread)
        for sentence in (*images.left_out, *images.unread):
            print(printable(sentence), file=sys.stderr)

    def remark(self, what: str, place: str) -> None:
        """Increments the count of a remark, and stores the names of the first few images with this remark."""
        self._remarks[what] += 1
        if len(self._examples[what]) < SHOWN:
            self._examples[what].append(place)

    def close(self) -> int:
        """Prints the counts and returns the exit code: 1 if some images have no prediction, otherwise 0."""
        for what, count in self._remarks.items():
            names = ", ".join(map(printable, self._examples[what]))
            more = f" and {count - SHOWN} more" if count > SHOWN else ""
            print(f"{counted(count, 'file')} with {what}: {names}{more}", file=sys.stderr)
        if self.skipped:
            print(f"{self.skipped} of {counted(self.seen, 'image')} skipped", file=sys.stderr)
        return 1 if self.skipped or self.incomplete else 0


def find_images(places: Sequence[str | Path]) -> Images:
    """Returns the images in files, folders and zip files.

    Args:
        places: Paths of files, folders and zip files.

    Raises:
        DataError: A path does not exist, or there are no images.
    """
    if missing := [f"{printable(str(place))}: {why}" for place in places if (why := _why_missing(Path(place)))]:
        raise DataError("\n".join(missing))
    images = Images([], [], [])
    for place in map(Path, places):
        _add_place(images, place)
    if not images.files:
        names = ", ".join(printable(str(place)) for place in places)
        reasons = "; ".join([*images.unread, *images.left_out])
        hint = reasons or "give image files, folders or zip files"
        raise DataError(f"{names}: no images found; {hint}")
    return images


def _add_place(images: Images, place: Path) -> None:
    """Adds a file, or the files in a folder or zip file, to `images`, in place."""
    if place.is_dir() or _is_archive(place):
        _add(images, find_files(place))
    else:
        images.files.append(ImageFile(place.parent, place.name))


def _add(images: Images, found: FoundFiles) -> None:
    """Adds the files found in a folder or zip file to `images`, in place."""
    images.files.extend(found.files)
    images.left_out.extend(by_reason(one for one in found.left_out if one.reason in HARMLESS))
    images.unread.extend(by_reason(one for one in found.left_out if one.reason not in HARMLESS))
    images.unread.extend(by_reason(found.unreadable))


def _why_missing(place: Path) -> str | None:
    """Returns the reason why a path cannot be used; None if the path exists."""
    try:
        place.stat()
    except FileNotFoundError:
        return "no such file or folder"
    except (OSError, ValueError) as error:  # ValueError: null byte in the path
        return str(getattr(error, "strerror", None) or error).lower()
    return None


def images_in_list(lines: Iterable[bytes], log: PredictionLog) -> Iterator[ImageFile]:
    """Yields the images found at the listed paths; processes each line as soon as it arrives.

    Args:
        lines: Paths of files, folders and zip files, one per line, for example from standard input.
        log: Receives messages about files that are left out. A path that does not exist counts as an unreadable image.

    Raises:
        DataError: No line contains a path.
    """
    paths = 0
    for name in filter(None, (line.rstrip(b"\r\n") for line in lines)):
        paths += 1
        images, place = Images([], [], []), Path(os.fsdecode(name))
        try:
            _add_place(images, place)
            problem = "" if images.files else f"{place}: no images found"
        except (DataError, OSError, ValueError) as error:  # ValueError: null byte in the path
            problem = f"{place}: {error.strerror}" if isinstance(error, OSError) else str(error)
        log.leave_out(images)
        if problem:
            log.seen += 1
            log.skip(problem)
        yield from images.files
    if not paths:
        raise DataError("standard input: no images found; give one image path per line")


def protect(out: Path | None, *inputs: Path) -> None:
    """Raises ConfigError if the predictions file is one of the input files."""
    if out and out.is_file() and any(given.exists() and out.samefile(given) for given in inputs):
        raise ConfigError(f"--out {out}: must not be one of the input files; choose another file")


def protected(out: Path | None, files: Iterable[ImageFile]) -> Iterator[ImageFile]:
    """Yields the files; raises ConfigError if one of them is `out`, the file for the predictions."""
    if out is None or not out.is_file():
        yield from files
        return
    for file in files:
        protect(out, file.root if file.archive else file.root / file.name)
        yield file


def _is_archive(place: Path) -> bool:
    """Returns whether a path is a zip file, based on its name or content."""
    return place.suffix.lower() == ".zip" or (place.is_file() and zipfile.is_zipfile(place))


def watched(files: Iterable[ImageFile], total: int | None, log: PredictionLog) -> Iterator[ImageFile]:
    """Yields and counts the files, and shows a progress bar if there are many.

    Args:
        files: The images.
        total: Number of images; None if it is unknown.
        log: Counts the images.
    """
    with progress("images", total) if total and total > MANY else nullcontext() as advance:
        for file in files:
            log.seen += 1
            yield file
            if advance:
                advance(log.seen, "")
