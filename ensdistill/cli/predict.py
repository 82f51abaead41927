"""Classes of images that lie anywhere on disk, and how they are told: as a table, CSV or JSON."""

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
MANY = 1000  # images; fewer are done before a bar could be read
WIDE = 10_000  # columns where there is no terminal: no name is folded, and a line stays a line for grep


@dataclass(frozen=True)
class ImagePrediction:
    """What a classifier says of one image."""

    file: str
    probabilities: np.ndarray  # float32 (classes,)

    def top(self, count: int) -> list[int]:
        """The likeliest classes, the likeliest first; of equal ones the first."""
        return [int(k) for k in np.argsort(-self.probabilities, kind="stable")[:count]]


Broken = Callable[[str], None]  # is called with each image that cannot be read
Remark = Callable[[str, str], None]  # is called with what is remarkable about an image, and with its path


@dataclass(frozen=True)
class Images:
    """Images to classify, and one sentence a reason about what is left out of their folders and zip files.

    Attributes:
        files: The images, in the order of the places.
        left_out: What is no image, or hidden.
        unread: What may be an image but cannot be read: broken links, folders without permission.
    """

    files: list[ImageFile]
    left_out: list[str]
    unread: list[str]


def find_images(places: Sequence[str | Path]) -> Images:
    """Returns the images of files, folders and zip files. Raises DataError if one is missing or there are none."""
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
        raise DataError(f"{names}: no image in there; {hint}")
    return images


def _add(images: Images, found: FoundFiles) -> None:
    images.files.extend(found.files)
    images.left_out.extend(by_reason(one for one in found.left_out if one.reason in HARMLESS))
    images.unread.extend(by_reason(one for one in found.left_out if one.reason not in HARMLESS))
    images.unread.extend(by_reason(found.unreadable))


def _why_missing(place: Path) -> str | None:
    try:
        place.stat()
    except FileNotFoundError:
        return "there is no such file or folder"
    except (OSError, ValueError) as error:  # ValueError: a null byte
        return str(getattr(error, "strerror", None) or error).lower()
    return None


def classify(
    classifier: Classifier, files: Iterable[ImageFile], broken: Broken, remark: Remark | None = None
) -> Iterator[ImagePrediction]:
    """Yields what the classifier returns for each image, in order; reads a batch at a time.

    Args:
        classifier: Which classifier.
        files: The images.
        broken: Called with the message about each image that cannot be read, and that is left out.
        remark: Called with what is remarkable about an image that is read, and with its path.

    Raises:
        DataError: The classifier takes other images than gray and RGB ones.
    """
    if classifier.shape[0] not in MODES:
        raise DataError(f"{classifier.path}: takes images of {classifier.shape[0]} channels; image files have 1 or 3")
    files = iter(files)
    while batch := list(islice(files, BATCH)):
        read = list(_read(batch, classifier.shape, broken, remark))
        if read:
            probabilities = classifier(np.stack([pixels for _, pixels in read]))
            yield from (ImagePrediction(place, p) for (place, _), p in zip(read, probabilities, strict=True))


def _is_archive(place: Path) -> bool:
    return place.suffix.lower() == ".zip" or (place.is_file() and zipfile.is_zipfile(place))


def _read(
    files: Sequence[ImageFile], shape: tuple[int, int, int], broken: Broken, remark: Remark | None
) -> Iterator[tuple[str, np.ndarray]]:
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


# --- how they are told ------------------------------------------------------------------------------------------------


def write_csv(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int, to: IO[str]) -> None:
    """A line an image, as soon as it is known: file, class, its probability, then the probability of every class."""
    lines = csv.writer(to, lineterminator="\n")
    lines.writerow(["file", "class", "probability", *(f"p({name})" for name in class_names)])
    for answer in answers:
        (best,) = answer.top(1)
        figures = [f"{p:.6g}" for p in answer.probabilities]
        lines.writerow([answer.file, class_names[best], figures[best], *figures])


def write_json(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int, to: IO[str]) -> None:
    """A list with an object an image: `file`, `class`, `probability`, and `probabilities` by class."""
    told = []
    for answer in answers:
        (best,) = answer.top(1)
        figures = [float(f"{p:.6g}") for p in answer.probabilities]
        first = {"file": answer.file, "class": class_names[best], "probability": figures[best]}
        told.append(first | {"probabilities": dict(zip(class_names, figures, strict=True))})
    json.dump(told, to, allow_nan=False)
    to.write("\n")


def write_table(answers: Iterable[ImagePrediction], class_names: Sequence[str], top: int, to: IO[str]) -> None:
    """A row an image: the likeliest classes with their probabilities."""
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
    Console(file=to, width=width, highlight=False, markup=False, emoji=False).print(table)  # names as they are


def write_predictions(
    answers: Iterable[ImagePrediction], classifier: Classifier, form: str | None, top: int, out: str | None
) -> None:
    """Writes the answers to the file `out`, whole or not at all, or to standard output.

    form: one of WRITERS; None: by the suffix of the file, and a table if that says nothing.
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
    """The files one after the other; where they are many, a progress bar says how far it is."""
    if len(files) <= MANY:
        yield from files
        return
    with progress("images", len(files)) as advance:
        for n, file in enumerate(files, 1):
            yield file
            advance(n, "")


WRITERS = {"table": write_table, "csv": write_csv, "json": write_json}
