"""Classifies image files and writes the predictions as a table, CSV or JSON."""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ensdistill.data.image_files import MODES, ImageFile
from ensdistill.data.walk import HARMLESS, FoundFiles, by_reason, find_files
from ensdistill.errors import DataError
from ensdistill.runtime.files import atomic_write
from ensdistill.runtime.lazy import np
from ensdistill.runtime.progress_bar import progress
from ensdistill.runtime.text import printable

if TYPE_CHECKING:
    from ensdistill.export.classifier import Classifier

BATCH = 128
MANY = 1000  # with fewer images, a progress bar disappears too soon
WIDE = 10_000  # columns without a terminal: no name is folded, so that grep finds each image on one line


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction for one image.

    Attributes:
        file: Path of the image.
        probabilities: Probabilities float32 (classes,).
    """

    file: str
    probabilities: np.ndarray

    def top(self, count: int) -> list[int]:
        """Returns the indices of the most likely classes, in descending order; the first of equals ranks first."""
        return [int(k) for k in np.argsort(-self.probabilities, kind="stable")[:count]]


Broken = Callable[[str], None]  # called with the message about each unreadable image
Remark = Callable[[str, str], None]  # called with a remark about an image and with its path


@dataclass(frozen=True)
class Images:
    """Images to classify, and one sentence per reason about skipped files in folders and zip files.

    Attributes:
        files: The images, in the order of the arguments.
        left_out: Files that are hidden or not images.
        unread: Possible images that cannot be read: broken links, folders without permission.
    """

    files: list[ImageFile]
    left_out: list[str]
    unread: list[str]


def find_images(places: Sequence[str | Path]) -> Images:
    """Returns the images of files, folders and zip files.

    Args:
        places: Paths of files, folders and zip files.

    Raises:
        DataError: A path does not exist, or there are no images.
    """
    if missing := [f"{printable(str(place))}: {why}" for place in places if (why := _why_missing(Path(place)))]:
        raise DataError("\n".join(missing))
    images = Images([], [], [])
    for place in map(Path, places):
        if place.is_dir() or _is_archive(place):
            _add(images, find_files(place))
        else:
            images.files.append(ImageFile(place.parent, place.name))
    if not images.files:
        names = ", ".join(printable(str(place)) for place in places)
        reasons = "; ".join([*images.unread, *images.left_out])
        hint = reasons or "give image files, folders or zip files"
        raise DataError(f"{names}: no images found; {hint}")
    return images


def _add(images: Images, found: FoundFiles) -> None:
    """Adds the files of a folder or zip file, in place."""
    images.files.extend(found.files)
    images.left_out.extend(by_reason(one for one in found.left_out if one.reason in HARMLESS))
    images.unread.extend(by_reason(one for one in found.left_out if one.reason not in HARMLESS))
    images.unread.extend(by_reason(found.unreadable))


def _why_missing(place: Path) -> str | None:
    """Returns the reason why a path cannot be used; None if it exists."""
    try:
        place.stat()
    except FileNotFoundError:
        return "no such file or folder"
    except (OSError, ValueError) as error:  # ValueError: a null byte
        return str(getattr(error, "strerror", None) or error).lower()
    return None


def classify(
    classifier: Classifier, files: Iterable[ImageFile], broken: Broken, remark: Remark | None = None
) -> Iterator[ImagePrediction]:
    """Yields the prediction for each image, in order; reads one batch at a time.

    Args:
        classifier: The classifier.
        files: The images.
        broken: Called with the message about each image that cannot be read; the image is skipped.
        remark: Called with a remark about an image, and with its path.

    Raises:
        DataError: The images of the classifier are neither gray nor RGB.
    """
    if classifier.shape[0] not in MODES:
        raise DataError(
            f"{classifier.path}: must have images of 1 or 3 channels, as in image files, got {classifier.shape[0]}; "
            "call the classifier from Python"
        )
    files = iter(files)
    while batch := list(islice(files, BATCH)):
        read = list(_read(batch, classifier.shape, broken, remark))
        if read:
            probabilities = classifier(np.stack([pixels for _, pixels in read]).transpose(0, 2, 3, 1))
            yield from (ImagePrediction(place, p) for (place, _), p in zip(read, probabilities, strict=True))


def _is_archive(place: Path) -> bool:
    """Returns whether a path is a zip file, by its name or content."""
    return place.suffix.lower() == ".zip" or (place.is_file() and zipfile.is_zipfile(place))


def _read(
    files: Sequence[ImageFile], shape: tuple[int, int, int], broken: Broken, remark: Remark | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields path and pixels, uint8 (C,H,W), of each image that can be read."""
    for file in files:
        try:
            read = file.read(shape)
        except DataError as error:
            broken(str(error))
            continue
        if remark:
            for what in read.remarks:
                remark(what, file.place)
        yield file.place, read.pixels


# --- output -----------------------------------------------------------------------------------------------------------


def write_csv(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int, to: IO[str]) -> None:
    """Writes one line per image immediately: file, class, its probability, then the probability of every class."""
    lines = csv.writer(to, lineterminator="\n")
    lines.writerow(["file", "class", "probability", *(f"p({name})" for name in class_names)])
    for answer in answers:
        (best,) = answer.top(1)
        figures = [f"{p:.6g}" for p in answer.probabilities]
        lines.writerow([answer.file, class_names[best], figures[best], *figures])


def write_json(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int, to: IO[str]) -> None:
    """Writes a list with one object per image: `file`, `class`, `probability`, and `probabilities` by class."""
    rows = []
    for answer in answers:
        (best,) = answer.top(1)
        figures = [float(f"{p:.6g}") for p in answer.probabilities]
        first = {"file": answer.file, "class": class_names[best], "probability": figures[best]}
        rows.append(first | {"probabilities": dict(zip(class_names, figures, strict=True))})
    json.dump(rows, to, allow_nan=False)
    to.write("\n")


def write_table(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int, to: IO[str]) -> None:
    """Writes a table with one row per image: the most likely classes with their probabilities."""
    from rich.console import Console
    from rich.table import Table

    count = min(top, len(class_names))
    table = Table()
    table.add_column("file", overflow="fold")
    for _ in range(count):
        table.add_column("class", overflow="fold")
        table.add_column("probability", justify="right")
    for answer in answers:
        best = [(printable(class_names[k]), f"{answer.probabilities[k]:.4f}") for k in answer.top(count)]
        table.add_row(printable(answer.file), *(cell for pair in best for cell in pair))
    width = None if to.isatty() else WIDE
    Console(file=to, width=width, highlight=False, markup=False, emoji=False).print(table)  # no markup in names


def write_predictions(
    answers: Iterable[ImagePrediction], classifier: Classifier, form: str | None, top: int, out: str | None
) -> None:
    """Writes the predictions atomically to a file, or to standard output.

    Args:
        answers: The predictions.
        classifier: The classifier, for the names of its classes.
        form: Name from WRITERS; None: by the suffix of the file, otherwise a table.
        top: Number of classes per image in a table.
        out: The file; None: standard output.
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


def with_progress(files: Sequence[ImageFile]) -> Iterator[ImageFile]:
    """Yields the files, with a progress bar if there are many."""
    if len(files) <= MANY:
        yield from files
        return
    with progress("images", len(files)) as advance:
        for n, file in enumerate(files, 1):
            yield file
            advance(n, "")


WRITERS = {"table": write_table, "csv": write_csv, "json": write_json}
