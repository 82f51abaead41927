"""A torch Dataset, selected by its import path."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, cast

from pydantic import JsonValue

from ensdistill.data.checks import label_number
from ensdistill.data.entries import Entry, FoundEntries, PartEntries
from ensdistill.data.entry_source import EntrySource
from ensdistill.data.image_files import ImageError, Read, Resize, read_image
from ensdistill.errors import DataError
from ensdistill.runtime.boundary import cause_of
from ensdistill.runtime.lazy import np
from ensdistill.runtime.text import counted
from ensdistill.settings.base import Settings, setting
from ensdistill.settings.plugins import PluginError, import_object

SAMPLE = 16  # the pixels of SAMPLE + 1 evenly spaced items per split are part of the hash that names a store


class DatasetCall(Settings):
    """A class or function that returns a torch Dataset, and the arguments of the call."""

    path: str = setting(
        ..., "`package.module:Name` of a class or function that is called to create the dataset.", min_length=1
    )
    arguments: dict[str, JsonValue] = setting({}, "Keyword arguments of the class or function.")


class TorchDataset(EntrySource):
    """Torch datasets, one for each split, selected by import path, such as `torchvision.datasets:Flowers102`.

    An item is a pair of an image and a label. An image is a PIL image, or a tensor or array of shape (C,H,W) or (H,W)
    with uint8 values or floats in [0,1]. Items are read by one thread at a time. Decoded images are reused until a
    change is detected in the path, the arguments, the code, the number of items, or the pixels of 17 evenly spaced
    items per split. No other change is detected.
    """

    kind: Literal["torch_dataset"] = "torch_dataset"
    train: DatasetCall = setting(..., "Training split.")
    validation: DatasetCall | None = setting(None, "Validation split; null to draw it from the training split.")
    test: DatasetCall | None = setting(None, "Test split; null to draw it from the training split.")
    unlabeled: DatasetCall | None = setting(None, "Unlabeled images, whose labels, if any, are ignored; null for none.")

    def entries(self) -> FoundEntries:
        """Returns the items of all splits.

        A dataset without a `targets` or `labels` attribute is read in full to collect the labels.

        Raises:
            DataError: A dataset cannot be created or read, or its labels are invalid.
        """
        calls = {"train": self.train, "validation": self.validation, "test": self.test, "unlabeled": self.unlabeled}
        made = {part: _made(part, call) for part, call in calls.items() if call is not None}
        parts = {part: _items(part, dataset) for part, dataset in made.items()}
        last, where = max((max(part.labels), name) for name, part in parts.items())
        given = getattr(made["train"], "classes", None) or range(last + 1)
        names = tuple(str(name) for name in given)
        if last >= len(names) or len(names) < 2:
            rule = f"has label {last}, but the training split has {counted(len(names), 'class')}"
            raise DataError(f"data.{where}: {rule}; number the classes from 0")
        origin = [_origin(call, parts[part].entries) for part, call in calls.items() if call is not None]
        own = {name: (f"data.{name}", len(part.entries)) for name, part in parts.items()}
        return FoundEntries(parts, names, repr(origin), tuple(self.ignored(own)))


@dataclass(frozen=True)
class DatasetItem:
    """One item of a torch Dataset.

    Attributes:
        dataset: The dataset.
        part: Name of the split.
        number: Index of the item, from 0.
        lock: Held while an item is read, because datasets need not be thread-safe.
    """

    dataset: Any
    part: str
    number: int
    lock: Lock
    stamp = ""  # empty, because the origin of the source identifies the dataset

    @property
    def name(self) -> str:
        """Name of the item in messages."""
        return f"{self.part}[{self.number}]"

    def item(self) -> Any:
        """Returns the item of the dataset.

        Raises:
            ImageError: The dataset raises an exception.
        """
        try:
            with self.lock:
                return self.dataset[self.number]
        except Exception as error:  # user code can raise any exception
            raise ImageError(self.name, self.name, f"the dataset raises an exception ({cause_of(error)})") from error

    def sides(self) -> tuple[int, int]:
        """Returns the width and height of the image; (0, 0) if the image cannot be read."""
        try:
            width, height = _image(self.item()).size
        except (ImageError, ValueError):  # the error is reported when the image is read
            return 0, 0
        return width, height

    def read(self, shape: tuple[int, int, int], resize: Resize) -> Read:
        """Returns the pixels as uint8 with the given shape (C,H,W).

        Raises:
            ImageError: The image cannot be read.
        """
        item = self.item()
        try:
            return read_image(_image(item), shape, resize)
        except Exception as error:  # decoders raise a dozen different exceptions for a damaged file
            raise ImageError(self.name, self.name, f"{error}") from error


def _made(part: str, call: DatasetCall) -> Any:
    """Returns the dataset of a split."""
    try:
        dataset = import_object(call.path)(**call.arguments)
        count = len(cast(Sized, dataset))
    except PluginError as error:
        raise DataError(
            f"data.{part}.path: {call.path} cannot be imported ({error}); write package.module:Name"
        ) from error
    except Exception as error:  # user code can raise any exception
        raise DataError(
            f"data.{part}: {call.path} fails ({cause_of(error)}); correct the path or the arguments"
        ) from error
    if not count:
        raise DataError(f"data.{part}: {call.path} has no items; correct its arguments")
    return dataset


def _items(part: str, dataset: Any) -> PartEntries:
    lock = Lock()
    items = [DatasetItem(dataset, part, n, lock) for n in range(len(dataset))]
    if part == "unlabeled":
        return PartEntries(list[Entry](items), [-1] * len(items))
    known = getattr(dataset, "targets", getattr(dataset, "labels", None))
    values = known if known is not None and len(known) == len(items) else [_label_in(item) for item in items]
    labels = [label_number(value, f"data.{item.name}") for item, value in zip(items, values, strict=True)]
    if min(labels) < 0:
        raise DataError(f"data.{part}: labels must be whole numbers from 0, got {min(labels)}; correct the dataset")
    return PartEntries(list[Entry](items), labels)


def _label_in(item: DatasetItem) -> Any:
    value = item.item()
    if isinstance(value, tuple | list) and len(value) == 2:
        return value[1]
    raise DataError(f"data.{item.name}: is a {type(value).__name__}, not a pair of an image and a label; return a pair")


def _image(item: Any) -> Any:
    """Returns the image of an item as a Pillow image; raises ValueError if the scale of its values is unknown."""
    from PIL import Image

    value = item[0] if isinstance(item, tuple | list) else item
    if isinstance(value, Image.Image):
        return value
    pixels = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"it has shape {pixels.shape}; give (C,H,W) or (H,W), with C = 1 or 3")
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(
                "some of its floats are outside 0 to 1; remove Normalize, because every network normalizes its images"
            )
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"it is {pixels.dtype}; give uint8 from 0 to 255, uint16, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _origin(call: DatasetCall, entries: list[Entry]) -> tuple[str, str, str, int, str]:
    """Returns values that identify the images of a split, as far as possible without reading all images."""
    try:
        code = hashlib.sha256(Path(inspect.getfile(import_object(call.path))).read_bytes()).hexdigest()
    except (TypeError, OSError):
        code = ""
    digest = hashlib.sha256()
    for n in sorted({round(k * (len(entries) - 1) / SAMPLE) for k in range(SAMPLE + 1)}):
        digest.update(entries[n].read((3, 32, 32), "squash").pixels.tobytes())
    return call.path, repr(sorted(call.arguments.items())), code, len(entries), digest.hexdigest()
