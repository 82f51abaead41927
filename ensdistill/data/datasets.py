"""Conversion of torch datasets to arrays; every item is read once, in order."""

from collections.abc import Sized
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ensdistill.data.checks import label_number
from ensdistill.errors import DataError
from ensdistill.runtime.progress_bar import progress

MANY = 5000  # a progress bar is shown only for more items than this


def read_dataset(dataset: Dataset[Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images (N,H,W) or (N,C,H,W) and the labels (N,) of a labeled dataset.

    Args:
        dataset: A dataset whose items are pairs of an image and a label.
        name: Name of the dataset in messages.

    Raises:
        DataError: The dataset has no length or no items, or an item is not a pair of an image and a label.
    """
    pairs = [_pair(item, f"{name}[{n}]") for n, item in enumerate(_items(dataset, name))]
    images = [_pixels(image, f"{name}[{n}]") for n, (image, _) in enumerate(pairs)]
    labels = [label_number(label, f"{name}[{n}]") for n, (_, label) in enumerate(pairs)]
    return _stacked(images, name), np.array(labels)


def read_images(dataset: Dataset[Any], name: str) -> np.ndarray:
    """Returns the images (N,H,W) or (N,C,H,W) of a dataset.

    Args:
        dataset: A dataset whose items are images, or pairs whose second element is ignored.
        name: Name of the dataset in messages.

    Raises:
        DataError: The dataset has no length or no items, or an item has no image.
    """
    items = _items(dataset, name)
    firsts = [item[0] if isinstance(item, tuple | list) else item for item in items]
    return _stacked([_pixels(image, f"{name}[{n}]") for n, image in enumerate(firsts)], name)


def _items(dataset: Dataset[Any], name: str) -> list[Any]:
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        kind = type(dataset).__name__
        raise DataError(f"{name}: is a {kind}, which has no length or no indexing; give a map-style torch Dataset")
    count = len(cast(Sized, dataset))
    if not count:
        raise DataError(f"{name}: has no items; give a dataset with images")
    if count <= MANY:
        return [dataset[n] for n in range(count)]
    items = []
    with progress(name, count) as advance:
        for n in range(count):
            items.append(dataset[n])
            advance(n + 1, "")
    return items


def _pair(item: Any, place: str) -> tuple[Any, Any]:
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise DataError(f"{place}: is a {type(item).__name__}, not a pair of an image and a label; return a pair")
    return item[0], item[1]


def _pixels(image: Any, place: str) -> np.ndarray:
    if isinstance(image, Image.Image):
        pixels: np.ndarray = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return image
    raise DataError(f"{place}: its image is a {type(image).__name__}; give a PIL image, a tensor or an array")


def _stacked(images: list[np.ndarray], name: str) -> np.ndarray:
    """Returns the images as one array; raises DataError if shapes or types differ, or floats are outside [0,1]."""
    kinds = {(image.shape, image.dtype) for image in images}
    if len(kinds) > 1:
        shown = " and ".join(f"{dtype} {shape}" for shape, dtype in sorted(kinds, key=str)[:2])
        raise DataError(
            f"{name}: its images have different shapes or types, {shown}; give them the same size and type, for "
            "example with Resize"
        )
    if images[0].dtype.kind == "f" and not all(i.min() >= 0 and i.max() <= 1 for i in images):
        low, high = min(float(i.min()) for i in images), max(float(i.max()) for i in images)
        raise DataError(
            f"{name}: its images contain floats from {low:.4g} to {high:.4g}; remove Normalize (every network "
            "normalizes its images itself), and give floats from 0 to 1"
        )
    return np.stack(images)
