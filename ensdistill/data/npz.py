"""Images as NumPy arrays in one .npz file, as written by `numpy.savez`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ensdistill.data.arrays import NAMES, raw_data_of
from ensdistill.data.names import own_path
from ensdistill.data.sizes import OwnSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.files import head_of, stand_in
from ensdistill.runtime.lazy import np
from ensdistill.runtime.text import counted, listed, printable
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile


STEMS = {  # usual names of the splits
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test",),
    "unlabeled": ("unlabeled", "unlabelled"),
}


class Npz(OwnSizes, DataSource):
    """Images and labels in one .npz file.

    The training split consists of `x_train` and `y_train`, or `train_images` and `train_labels` as in MedMNIST, or
    `images` and `labels`. Optional arrays are `x_val` and `x_test` with their labels, `x_unlabeled`, and `class_names`.
    Existing splits are used in full; missing splits are drawn from the labeled images.

    Image arrays have shape (N,H,W), (N,H,W,C) or (N,C,H,W), with C = 1 or 3. If the last two forms are both possible,
    the last axis is taken as the channel axis, as is usual in NumPy. Images are uint8, or floats in [0,1]. Labels are
    whole numbers from 0, of shape (N,) or (N,1); without `class_names`, every label up to the largest must occur.
    """

    kind: Literal["npz"] = "npz"
    path: str = setting(..., "Path of the .npz file.", file=True, min_length=1)

    def __call__(self) -> RawData:
        """Returns uint8 images (N,C,H,W), and warnings about unused arrays; nothing is unpickled.

        Raises:
            DataError: The file cannot be read, or an array is invalid; the message names the array and states
                the violated rule.
        """
        with _opened(own_path(self.path)) as archive:
            found = _pairs(archive.files)
            used = {name for pair in found.values() for name in pair} | {NAMES}
            arrays = _read(archive, used)
            unused = [name for name in archive.files if name not in used]
        if "train" not in found:
            there = listed(arrays or unused) or "none"
            fix = "name the images x_train and the labels y_train"
            raise DataError(f"data.path: no array x_train; {fix} (available: {there})")
        try:
            raw = raw_data_of(arrays, found)
        except DataError as error:
            raise DataError(f"data.path: {error}") from None
        rule = f"{counted(len(unused), 'array')} not used: {listed(unused)}"
        warnings = [ConfigIssue(("data", "path"), rule)] if unused else []
        return replace(raw, warnings=(*warnings, *self.ignored(raw.own_parts({k: x for k, (x, _) in found.items()}))))


def _pairs(there: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Returns the names of each split's image array and label array; the latter is "" for unlabeled images."""
    known = {name.lower(): name for name in reversed(list(there))}
    found = {}
    for part, stems in STEMS.items():
        pairs = [pair for stem in stems for pair in ((f"x_{stem}", f"y_{stem}"), (f"{stem}_images", f"{stem}_labels"))]
        pairs += [("images", "labels")] if part == "train" else []
        for x, y in pairs:
            labels = "" if part == "unlabeled" else known.get(y, y)
            if x in known or labels in known.values():
                found[part] = (known.get(x, x), labels)
                break
    return found


@contextmanager
def _opened(path: Path) -> Iterator[NpzFile]:
    """Opens the file; all errors, including those inside the block, are raised as DataError."""
    if not path.is_file():
        raise DataError(f"data.path: {printable(str(path))} is not a file; give a .npz file with x_train and y_train")
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_size(archive)
            yield archive
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"data.path: {printable(str(path))} cannot be read: permission denied") from error
    except MemoryError as error:
        raise DataError(f"data.path: {printable(str(path))} does not fit into memory; write fewer images") from error
    except Exception as error:  # zip, zlib and NumPy raise a dozen different errors for a damaged file
        head = head_of(path)
        if what := stand_in(head):
            raise DataError(f"data.path: {printable(str(path))} is {what}") from error
        cause = _no_npz(head) or error
        reason = f"{printable(str(path))} is not a readable .npz file of plain arrays ({cause})"
        raise DataError(f"data.path: {reason}; write it with numpy.savez") from error


def _check_size(archive: NpzFile) -> None:
    """Raises MemoryError if the arrays are larger than the memory of this machine, even if the file is small."""
    # zipfile never reads more than these sizes
    size = sum(entry.file_size for entry in archive.zip.infolist()) if archive.zip else 0
    if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise MemoryError


def _no_npz(head: bytes) -> str:
    """Returns the type of a file, based on its first bytes; empty for a zip file or an unknown type."""
    known = {b"\x93NUMPY": "a single array, as written by numpy.save", b"\x80": "a pickle, which could run code"}
    return next((what for first, what in known.items() if head.startswith(first)), "")


def _read(archive: NpzFile, names: set[str]) -> dict[str, np.ndarray]:
    arrays = {}
    for name in archive.files:
        if name in names:
            array = _array(archive, name)
            if not isinstance(array, np.ndarray):
                raise DataError(f"data.path: {name} is not an array; write the file with numpy.savez")
            arrays[name] = array
    return arrays


def _array(archive: NpzFile, name: str) -> Any:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        rule = f"{name} is an array of Python objects, which is not read because unpickling can run code"
        raise DataError(f"data.path: {rule}; convert it with astype, for example to uint8 or str") from error
