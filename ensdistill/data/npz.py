"""Your own images as NumPy arrays in one .npz file, as `numpy.savez` writes it."""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ensdistill.data.splits import Sizes, Source, Split
from ensdistill.errors import DataError
from ensdistill.files import user_path
from ensdistill.settings import setting

POOLS = (("x_train", "y_train"), ("images", "labels"))
TEST = ("x_test", "y_test")
NAMES = "class_names"


class Npz(Sizes):
    """Arrays `x_train` and `y_train` (or `images` and `labels`), and where there are any `x_test`, `y_test` and
    `class_names`.

    Images are (N,H,W), (N,H,W,C) or (N,C,H,W) with C one or three; where both of the latter fit, the last axis is the
    channel, as NumPy users write it. They are uint8, or floats that all lie in [0,1]. Labels are whole numbers (N,) or
    (N,1) from 0; without `class_names` each up to the largest has an image.
    """

    kind: Literal["npz"] = "npz"
    path: str = setting(..., "The .npz file.", file=True, min_length=1)

    def __call__(self) -> Source:
        """Images uint8 (N,C,H,W). Raises DataError naming the array and the rule it breaks. Nothing is unpickled."""
        arrays = _read(user_path(self.path))
        pair = next((pair for pair in POOLS if pair[0] in arrays), POOLS[0])
        pool = _split(arrays, *pair)
        names = _class_names(arrays, pool.labels, pair[1])
        test = _split(arrays, *TEST) if set(TEST) & set(arrays) else None
        if test and test.images.shape[1:] != pool.images.shape[1:]:
            shapes = f"{tuple(test.images.shape[1:])} and {tuple(pool.images.shape[1:])}"
            raise DataError(f"data.path: images of x_test and {pair[0]} differ, {shapes} (C,H,W); give them one shape")
        if test and test.labels.max() >= len(names):
            raise DataError(f"data.path: y_test has label {int(test.labels.max())}, there are {len(names)} classes")
        return Source(pool, names, test)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"data.path: there is no file {path}; give a .npz file with x_train and y_train")
    known = {*TEST, NAMES}.union(*POOLS)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in known}
    except Exception as error:  # zip, zlib and NumPy name a dozen different errors for a damaged file
        reason = f"{path} is not a readable .npz file of plain arrays ({error})"
        raise DataError(f"data.path: {reason}; write it with numpy.savez") from error


def _split(arrays: dict[str, np.ndarray], x: str, y: str) -> Split:
    for name in (x, y):
        if name not in arrays:
            raise DataError(f"data.path: no array {name}; there are {', '.join(arrays) or 'none that are known'}")
    images, labels = _images(arrays[x], x), _labels(arrays[y], y)
    if len(images) != len(labels) or not len(images):
        raise DataError(f"data.path: {len(images)} images in {x} and {len(labels)} labels in {y}; one each is needed")
    return Split(images, labels)


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
    if x.size and not (x.min() >= 0 and x.max() <= 1):  # so put, NaN is refused too
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
    if found < 2:
        raise DataError(f"data.path: {name} has images of {found} classes; two are the least")
    return tuple(map(str, range(last + 1) if given is None else given))
