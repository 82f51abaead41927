"""Images in the memory of a Python program: tensors, arrays, or a torch Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from ensdistill.data.arrays import NAMES, raw_data_of
from ensdistill.data.sizes import OwnSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, content_hash
from ensdistill.errors import DataError
from ensdistill.runtime.in_memory import keep, kept
from ensdistill.runtime.lazy import np
from ensdistill.settings.base import setting
from ensdistill.settings.validation import validate

if TYPE_CHECKING:
    from torch.utils.data import Dataset

Labeled = tuple[Any, Any]  # images and labels

_PLACES = {"train": "images", "validation": "validation", "test": "test", "unlabeled": "unlabeled"}  # argument names


class Data(OwnSizes, DataSource):
    """Images that a Python program passes to `Data.from_arrays` or `Data.from_dataset`.

    The settings contain only the hash of the images; the images themselves remain in the memory of the program. A
    program that resumes a run or a study must pass the same images again.
    """

    kind: Literal["in_memory"] = "in_memory"
    content: str = setting(..., "Hash of the images that a Python program passes; see ensdistill.Data.", min_length=1)

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        *,
        validation: Labeled | None = None,
        test: Labeled | None = None,
        unlabeled: Any = None,
        class_names: Sequence[str] | None = None,
        **sizes: Any,
    ) -> Data:
        """Returns settings that refer to images in memory; the images are copied.

        Args:
            images: Tensor or array of shape (N,H,W), (N,C,H,W) or (N,H,W,C) with C = 1 or 3; uint8, or floats in [0,1].
            labels: Whole numbers (N,) from 0.
            validation: Validation images and labels; by default, a random sample of size `val_size` is held out.
            test: Test images and labels; by default, a random sample of size `test_size` is held out.
            unlabeled: Images without labels.
            class_names: Name of each class; by default, the labels themselves.
            sizes: The `train_size`, `val_size`, `test_size` and `seed` settings, as for all data sources.

        Raises:
            DataError: Images or labels are invalid; the message begins with the name of the array.
            ConfigError: A size is out of range.
        """
        pairs = {"train": ("images", "labels")}
        arrays = {"images": _array(images), "labels": _array(labels)}
        for part, given in (("validation", validation), ("test", test)):
            if given is not None:
                pairs[part] = (f"{part} images", f"{part} labels")
                arrays |= dict(zip(pairs[part], map(_array, _two(part, given)), strict=True))
        if unlabeled is not None:
            pairs["unlabeled"] = ("unlabeled", "")
            arrays["unlabeled"] = _array(unlabeled)
        if class_names is not None:
            arrays[NAMES] = np.array([str(name) for name in class_names])
        return cls._of(raw_data_of(arrays, pairs), sizes)

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset[Any],
        *,
        validation: Dataset[Any] | None = None,
        test: Dataset[Any] | None = None,
        unlabeled: Dataset[Any] | None = None,
        class_names: Sequence[str] | None = None,
        **sizes: Any,
    ) -> Data:
        """Returns settings that refer to the images in a torch Dataset.

        Each item is read once. A progress bar is shown for large datasets.

        Args:
            dataset: A dataset whose items are pairs of an image and a label. An image is a PIL image, or a tensor or
                array of shape (C,H,W) or (H,W) with uint8 values or floats in [0,1]. All images must be equal in size.
            validation: Validation dataset; by default, a random sample of size `val_size` is held out.
            test: Test dataset; by default, a random sample of size `test_size` is held out.
            unlabeled: A dataset of images, or of pairs whose labels are ignored.
            class_names: Name of each class; by default, `dataset.classes`, or the labels themselves.
            sizes: The `train_size`, `val_size`, `test_size` and `seed` settings, as for all data sources.

        Raises:
            DataError: An item is not a pair of an image and a label, or images or labels are invalid.
            ConfigError: A size is out of range.
        """
        from ensdistill.data.datasets import read_dataset, read_images  # imported only here, because this loads torch

        images, labels = read_dataset(dataset, "dataset")
        parts = {"validation": validation, "test": test}
        given = {part: None if other is None else read_dataset(other, part) for part, other in parts.items()}
        names = class_names if class_names is not None else getattr(dataset, "classes", None)
        others = None if unlabeled is None else read_images(unlabeled, "unlabeled")
        return cls.from_arrays(images, labels, **given, unlabeled=others, class_names=names, **sizes)

    @classmethod
    def _of(cls, raw: RawData, sizes: dict[str, Any]) -> Data:
        """Stores the images in this process and returns settings that contain their hash."""
        parts = [part for part in (raw.pool, raw.validation, raw.test) if part is not None]
        where = [part is not None for part in (raw.validation, raw.test)]
        content = f"{content_hash(parts, (*raw.class_names, repr(where)), raw.unlabeled)}"
        keep(content, raw)
        return validate(cls, {"content": content} | sizes)

    def __call__(self) -> RawData:
        """Returns uint8 images (N,C,H,W).

        Raises:
            DataError: The images are not in the memory of this process.
        """
        raw: RawData | None = kept(self.content)
        if raw is None:
            raise DataError(
                f"data.content: the images with hash {self.content} are not in the memory of this process; pass them "
                "again to ensdistill.Data in the program that uses these settings"
            )
        return replace(raw, warnings=tuple(self.ignored(raw.own_parts(_PLACES))))


def _two(part: str, given: Labeled) -> Labeled:
    try:
        images, labels = given
    except (TypeError, ValueError):
        raise DataError(f"{part}: must be a pair of images and labels") from None
    return images, labels


def _array(values: Any) -> np.ndarray:
    """Returns a NumPy copy of an array, a list, or a tensor on any device."""
    if isinstance(values, list):
        values = [_array(value) for value in values]
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.array(values)  # a copy, so that later changes to the original have no effect
