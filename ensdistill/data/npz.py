"""Your own images as NumPy arrays in one .npz file, as `numpy.savez` writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ensdistill.data.checks import BLACK
from ensdistill.data.names import is_text, own_path
from ensdistill.data.sizes import OwnSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.files import head_of, stand_in
from ensdistill.runtime.lazy import np, torch
from ensdistill.runtime.text import counted, listed, printable
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile
    from torch import Tensor


STEMS = {  # what people call the parts
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test",),
    "unlabeled": ("unlabeled", "unlabelled"),
}
NAMES = "class_names"
CHANNELS = "(C,H,W)"


class Npz(OwnSizes, DataSource):
    """Arrays `x_train` and `y_train`, or `train_images` and `train_labels` as MedMNIST calls them, or `images` and
    `labels`; likewise `x_val`, `x_test` and `x_unlabeled`, which has no labels; and `class_names`.

    A part that exists is taken as it is; the others are drawn from the labeled images. Images are (N,H,W), (N,H,W,C) or
    (N,C,H,W) with C one or three; where both of the latter fit, the last axis is the channel, as NumPy users write it.
    They are uint8, or floats that all lie in [0,1]. Labels are whole numbers (N,) or (N,1) from 0; without
    `class_names` each up to the largest has an image.
    """

    kind: Literal["npz"] = "npz"
    path: str = setting(..., "The .npz file.", file=True, min_length=1)

    def __call__(self) -> RawData:
        """Returns images uint8 (N,C,H,W), with warnings about arrays that are not used. Nothing is unpickled.

        Raises:
            DataError: Names the array and the rule it breaks.
        """
        with _opened(own_path(self.path)) as archive:
            found = _pairs(archive.files)
            used = {name for pair in found.values() for name in pair} | {NAMES}
            arrays = _read(archive, used)
            unused = [name for name in archive.files if name not in used]
        if "train" not in found:
            there = listed(arrays or unused) or "none"
            raise DataError(f"data.path: no array x_train; there are {there}; name images x_train, labels y_train")
        pool = _split(arrays, *found["train"])
        names = _class_names(arrays, pool.labels, found["train"][1])
        own = {part: _split(arrays, *pair) for part, pair in found.items() if part != "train"}
        for part, split in own.items():
            _check(split, found[part], pool, found["train"], len(names))
        rule = f"{counted(len(unused), 'array')} not used: {listed(unused)}"
        places = {part: (found[part][0], len(split)) for part, split in own.items()}
        warnings = [ConfigIssue(("data", "path"), rule)] if unused else []
        return RawData(
            pool,
            names,
            test=own.get("test"),
            validation=own.get("validation"),
            unlabeled=own.get("unlabeled"),
            warnings=(*warnings, *self.ignored(places)),
        )


def _pairs(there: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The names of images and labels of each part, as the file has them; unlabeled images have no labels ("")."""
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
    """The opened file. Raises DataError, also for what is read from it while it is open."""
    if not path.is_file():
        raise DataError(f"data.path: {printable(str(path))} is no file; give a .npz file with x_train and y_train")
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"data.path: {printable(str(path))} cannot be read: permission denied") from error
    except MemoryError as error:
        raise DataError(f"data.path: {printable(str(path))} does not fit into memory; write fewer images") from error
    except Exception as error:  # zip, zlib and NumPy name a dozen different errors for a damaged file
        head = head_of(path)
        if what := stand_in(head):
            raise DataError(f"data.path: {printable(str(path))} is {what}") from error
        cause = _no_npz(head) or error
        reason = f"{printable(str(path))} is not a readable .npz file of plain arrays ({cause})"
        raise DataError(f"data.path: {reason}; write it with numpy.savez") from error


def _no_npz(head: bytes) -> str:
    """What a file is that is no zip file, by its first bytes; empty if it is one, or unknown."""
    known = {b"\x93NUMPY": "a single array, as numpy.save writes it", b"\x80": "a pickle, which could run code"}
    return next((what for first, what in known.items() if head.startswith(first)), "")


def _read(archive: NpzFile, names: set[str]) -> dict[str, np.ndarray]:
    arrays = {}
    for name in archive.files:
        if name in names:
            array = _array(archive, name)
            if not isinstance(array, np.ndarray):
                raise DataError(f"data.path: {name} is no array; write the file with numpy.savez")
            arrays[name] = array
    return arrays


def _array(archive: NpzFile, name: str) -> Any:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        rule = f"{name} is an array of Python objects, which would have to be unpickled"
        raise DataError(f"data.path: {rule}; convert it with astype, for example to uint8 or str") from error


def _split(arrays: dict[str, np.ndarray], x: str, y: str) -> Split:
    """Images and labels; labels are -1 if y is empty."""
    for name in filter(None, (x, y)):
        if name not in arrays:
            raise DataError(f"data.path: no array {name}; there are {', '.join(arrays)}")
    images = _images(arrays[x], x)
    labels = _labels(arrays[y], y) if y else torch.full((len(images),), -1)
    if len(images) != len(labels) or not len(images):
        raise DataError(f"data.path: {_both(images, labels, x, y)}; one each is needed")
    _check_scale(images, arrays[x].dtype, x)
    return Split(images, labels)


def _both(images: Tensor, labels: Tensor, x: str, y: str) -> str:
    return f"{counted(len(images), 'image')} in {x} and {counted(len(labels), 'label')} in {y}"


def _check(split: Split, own: tuple[str, str], pool: Split, others: tuple[str, str], classes: int) -> None:
    """Raises DataError if a part does not fit the training part."""
    if split.images.shape[1:] != pool.images.shape[1:]:
        shapes = f"{tuple(split.images.shape[1:])} and {tuple(pool.images.shape[1:])} {CHANNELS}"
        raise DataError(f"data.path: images of {own[0]} and {others[0]} differ, {shapes}; give them one shape")
    if split.labels.max() >= classes:
        raise DataError(f"data.path: {own[1]} has label {int(split.labels.max())}, there are {classes} classes")


def _check_scale(images: Tensor, dtype: np.dtype[Any], name: str) -> None:
    """Raises DataError if the brightest pixel is black: values that were scaled twice, or to 1 and then to bytes."""
    if images.max() <= BLACK:
        scale = "floats from 0 to 1/255" if dtype.kind == "f" else "bytes of 0 and 1 only"
        raise DataError(
            f"data.path: {name} holds {scale}, which is black; give floats from 0 to 1, or uint8 from 0 to 255"
        )


def _images(x: np.ndarray, name: str) -> Tensor:
    """uint8 (N,C,H,W)."""
    if x.dtype.kind == "f":
        x = _bytes(x, name)
    if x.dtype != np.uint8:
        raise DataError(f"data.path: {name} is {x.dtype}; give uint8 from 0 to 255, or floats from 0 to 1")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape[2:]:
        raise DataError(f"data.path: {name} has shape {x.shape}; give (N,H,W), (N,H,W,C) or (N,C,H,W), C one or three")
    return torch.from_numpy(np.ascontiguousarray(x))


def _bytes(x: np.ndarray, name: str) -> np.ndarray:
    if np.isnan(x).any():
        raise DataError(f"data.path: {name} holds NaN; give floats from 0 to 1, or uint8 from 0 to 255")
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        scale = f"from {x.min():.4g} to {x.max():.4g}"
        raise DataError(f"data.path: {name} holds floats {scale}; scale them to [0,1], or give uint8 from 0 to 255")
    return (x * 255).round().astype(np.uint8)


def _labels(y: np.ndarray, name: str) -> Tensor:
    """int64 (N,), none below 0."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        way_out = "give whole numbers (N,) or (N,1), of one-hot labels their argmax"
        raise DataError(f"data.path: {name} is {y.dtype} of shape {y.shape}; {way_out}")
    if y.size and not 0 <= y.min() <= y.max() < 2**31:
        raise DataError(f"data.path: {name} has labels from {y.min()} to {y.max()}; number the classes from 0")
    return torch.from_numpy(y.astype(np.int64))


def _class_names(arrays: dict[str, np.ndarray], labels: Tensor, name: str) -> tuple[str, ...]:
    """The given names, or the labels themselves; at least two, and one for every label."""
    last, found = int(labels.max()), len(np.unique(labels.numpy()))
    given = arrays.get(NAMES)
    if given is None and found != last + 1:
        way_out = f"number them without gaps, or give the array {NAMES}"
        raise DataError(f"data.path: {name} has {found} classes, the last of them {last}; {way_out}")
    if given is not None and (given.ndim != 1 or given.dtype.kind != "U" or len(given) <= last):
        what = f"{given.dtype} of shape {given.shape}"
        raise DataError(f"data.path: {NAMES} is {what}; give one string for each of the labels 0 to {last}")
    if given is not None and (twice := [str(name) for name, n in Counter(given.tolist()).items() if n > 1]):
        raise DataError(f"data.path: {NAMES} has {twice[0]!r} more than once; give each class a name of its own")
    if given is not None and any(not name.strip() for name in given.tolist()):
        raise DataError(f"data.path: {NAMES} has an empty name; give each class a name")
    if given is not None and (bad := [name for name in given.tolist() if not is_text(name)]):
        raise DataError(f"data.path: {NAMES} has {printable(bad[0])}, which is not UTF-8; give it another name")
    if found < 2:
        raise DataError(f"data.path: {name} has images of {counted(found, 'class')}; two are the least")
    return tuple(map(str, range(last + 1) if given is None else given))
