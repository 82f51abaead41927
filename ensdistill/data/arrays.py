"""Validation of images and labels that are given as arrays, in files or in memory.

Error messages begin with the name of the invalid array.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ensdistill.data.checks import BLACK
from ensdistill.data.names import is_text
from ensdistill.data.splits import RawData, Split
from ensdistill.errors import DataError
from ensdistill.runtime.lazy import np, torch
from ensdistill.runtime.text import counted, printable

if TYPE_CHECKING:
    from torch import Tensor

NAMES = "class_names"
CHANNELS = "(C,H,W)"

Pair = tuple[str, str]  # names of the image array and the label array; the latter is "" if there are no labels


def raw_data_of(arrays: dict[str, np.ndarray], pairs: Mapping[str, Pair]) -> RawData:
    """Converts arrays of images and labels to the `RawData` of a data source.

    Args:
        arrays: The arrays, keyed by name; `class_names` is optional.
        pairs: Names of the image array and the label array, keyed by split. The `train` split is required;
            `validation`, `test` and `unlabeled` are optional.

    Returns:
        uint8 images (N,C,H,W) and int64 labels (N,) of each split.

    Raises:
        DataError: An array is invalid; the message begins with its name.
    """
    pool = split_of(arrays, *pairs["train"])
    names = class_names_of(arrays, pool.labels, pairs["train"][1])
    own = {part: split_of(arrays, *pair) for part, pair in pairs.items() if part != "train"}
    for part, split in own.items():
        check_part(split, pairs[part], pool, pairs["train"], len(names))
    return RawData(pool, names, own.get("test"), own.get("validation"), own.get("unlabeled"))


def split_of(arrays: dict[str, np.ndarray], x: str, y: str) -> Split:
    """Returns a split whose images and labels come from two arrays.

    Args:
        arrays: The arrays, keyed by name.
        x: Name of the image array.
        y: Name of the label array; empty for images without labels, which receive the label -1.

    Raises:
        DataError: An array is missing or invalid, or the lengths of the arrays differ.
    """
    for name in filter(None, (x, y)):
        if name not in arrays:
            raise DataError(f"no array {name}; add it (available: {', '.join(arrays)})")
    images = _images(arrays[x], x)
    labels = _labels(arrays[y], y) if y else torch.full((len(images),), -1)
    if len(images) != len(labels) or not len(images):
        raise DataError(f"{_both(images, labels, x, y)}; give one label for each image")
    _check_scale(images, arrays[x].dtype, x)
    return Split(images, labels)


def _both(images: Tensor, labels: Tensor, x: str, y: str) -> str:
    return f"{counted(len(images), 'image')} in {x} and {counted(len(labels), 'label')} in {y}"


def check_part(split: Split, own: tuple[str, str], pool: Split, others: tuple[str, str], classes: int) -> None:
    """Checks that a split matches the training split: equal image shapes, and labels below the number of classes.

    Args:
        split: Images and labels of the split.
        own: Names of the split's image and label arrays.
        pool: Images and labels of the training split.
        others: Names of the image and label arrays of the training split.
        classes: Number of classes.

    Raises:
        DataError: The image shapes differ, or a label is equal to or above the number of classes.
    """
    if split.images.shape[1:] != pool.images.shape[1:]:
        shapes = f"{tuple(split.images.shape[1:])} and {tuple(pool.images.shape[1:])} {CHANNELS}"
        raise DataError(f"images of {own[0]} and {others[0]} differ in shape, {shapes}; give all images the same shape")
    if split.labels.max() >= classes:
        rule = f"{own[1]} has label {int(split.labels.max())}, but there are {classes} classes"
        raise DataError(f"{rule}; give labels from 0 to {classes - 1}")


def _check_scale(images: Tensor, dtype: np.dtype[Any], name: str) -> None:
    """Raises DataError if all images are black, for example because they were scaled to [0,1] twice."""
    if images.max() <= BLACK:
        scale = "floats from 0 to 1/255" if dtype.kind == "f" else "bytes of 0 and 1 only"
        rule = f"{name} contains {scale}, so its images are black"
        raise DataError(f"{rule}; give floats from 0 to 1, or uint8 from 0 to 255")


def _images(x: np.ndarray, name: str) -> Tensor:
    """Returns the images in an array as uint8 (N,C,H,W)."""
    if x.dtype.kind == "f":
        x = _bytes(x, name)
    if x.dtype != np.uint8:
        raise DataError(f"{name} is {x.dtype}; give uint8 from 0 to 255, or floats from 0 to 1")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape[2:]:
        raise DataError(f"{name} has shape {x.shape}; give (N,H,W), (N,H,W,C) or (N,C,H,W), with C = 1 or 3")
    return torch.from_numpy(np.ascontiguousarray(x))


def _bytes(x: np.ndarray, name: str) -> np.ndarray:
    if np.isnan(x).any():
        raise DataError(f"{name} contains NaN; give floats from 0 to 1, or uint8 from 0 to 255")
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        scale = f"from {x.min():.4g} to {x.max():.4g}"
        raise DataError(f"{name} contains floats {scale}; scale them to [0,1], or give uint8 from 0 to 255")
    return (x * 255).round().astype(np.uint8)


def _labels(y: np.ndarray, name: str) -> Tensor:
    """Returns the labels in an array as int64 (N,), with values of at least 0."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        fix = "give whole numbers (N,) or (N,1); for one-hot labels, give their argmax"
        raise DataError(f"{name} is {y.dtype} of shape {y.shape}; {fix}")
    if y.size and not 0 <= y.min() <= y.max() < 2**31:
        raise DataError(f"{name} has labels from {y.min()} to {y.max()}; number the classes from 0")
    return torch.from_numpy(y.astype(np.int64))


def class_names_of(arrays: dict[str, np.ndarray], labels: Tensor, name: str) -> tuple[str, ...]:
    """Returns the name of each class.

    Args:
        arrays: The arrays, keyed by name; `class_names` contains the names of the classes and is optional.
        labels: Labels of the training split, int64 (N,).
        name: Name of the label array.

    Returns:
        The names in the order of the labels; without `class_names`, the labels themselves.

    Raises:
        DataError: A class name is missing, empty, duplicate or not UTF-8; the labels have gaps; or there are fewer than
            two classes.
    """
    last, found = int(labels.max()), len(np.unique(labels.numpy()))
    given = arrays.get(NAMES)
    if given is None and found != last + 1:
        fix = f"number them without gaps, or give an array {NAMES}"
        raise DataError(f"{name} has {found} classes, but the largest label is {last}; {fix}")
    if given is not None and (given.ndim != 1 or given.dtype.kind != "U" or len(given) <= last):
        what = f"{given.dtype} of shape {given.shape}"
        raise DataError(f"{NAMES} is {what}; give one string for each of the labels 0 to {last}")
    if given is not None and (twice := [str(name) for name, n in Counter(given.tolist()).items() if n > 1]):
        raise DataError(f"{NAMES} contains {twice[0]!r} more than once; give each class a unique name")
    if given is not None and any(not name.strip() for name in given.tolist()):
        raise DataError(f"{NAMES} contains an empty name; give each class a name")
    if given is not None and (bad := [name for name in given.tolist() if not is_text(name)]):
        raise DataError(f"{NAMES} contains {printable(bad[0])}, which is not UTF-8; rename this class")
    if found < 2:
        raise DataError(f"{name} has labels of {counted(found, 'class')}; at least two classes are required")
    return tuple(map(str, range(last + 1) if given is None else given))
