"""Disjoint, stratified splits drawn with a seed, and the content hash of the splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ensdistill.data.checks import implausible
from ensdistill.data.image_facts import channel_sums, image_hashes
from ensdistill.data.shared_images import SharedImages, joined
from ensdistill.data.sizes import SETTING_OF, SplitSizes, count_of
from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.runtime.lazy import np, torch
from ensdistill.runtime.text import counted

if TYPE_CHECKING:
    from torch import Tensor


Shape = tuple[int, int, int]  # channels, height, width of an image


@dataclass(frozen=True)
class Split:
    """Images and labels of one split; never modify the tensors, because other processes may share their memory.

    Attributes:
        images: uint8 (N,C,H,W), as a tensor or in a file that several processes read; both can be indexed.
        labels: int64 (N,), -1 for images without a label.
    """

    images: Tensor | SharedImages
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Returns a batch: float32 images (B,C,H,W) in [0,1] and labels (B,)."""
        return to_unit(self.images[index]), self.labels[index]

    def take(self, index: np.ndarray | slice) -> Split:
        """Returns the images and labels with the given indices (B,), or in the given range."""
        chosen = index if isinstance(index, slice) else torch.as_tensor(index)
        images = self.images
        return Split(images.take(chosen) if isinstance(images, SharedImages) else images[chosen], self.labels[chosen])

    def to(self, device: torch.device | str) -> Split:
        """Returns the split on another device."""
        return Split(self.images.to(device), self.labels.to(device))

    def channel_statistics(self) -> tuple[Tensor, Tensor]:
        """Returns the mean and standard deviation per channel of the images in [0,1], as new tensors (C,)."""
        mean, variance = self._moments
        return mean.float(), variance.clamp(min=1e-8).sqrt().float()

    @cached_property
    def hashes(self) -> list[bytes]:
        """Hash of the pixels of each image."""
        return image_hashes(self.images)

    @cached_property
    def content(self) -> str:
        """Hash of the content and order of the images, without labels."""
        return f"{tuple(self.images.shape)} {hashlib.sha256(b''.join(self.hashes)).hexdigest()}"

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance per channel in float64; cached, because every network for these images needs them."""
        sums, squares = (total.double() for total in channel_sums(self.images))
        pixels = max(1, len(self)) * self.images.shape[2] * self.images.shape[3]
        mean = sums / (255 * pixels)
        return mean, squares / (255**2 * pixels) - mean.square()


@dataclass(frozen=True)
class DataSplits:
    """The splits that training may use; the test split is not included.

    Attributes:
        train: Labeled training images.
        validation: Validation images.
        unlabeled: Unlabeled images; all labels are -1.
        class_names: Name of each class.
        identity: Content hash of all splits, including the test split.
        warnings: Warnings about implausible images and files.
        own_validation: Whether the source has a validation split; otherwise, `validation` is drawn from labeled images.
    """

    train: Split
    validation: Split
    unlabeled: Split
    class_names: tuple[str, ...]
    identity: str
    warnings: tuple[ConfigIssue, ...] = ()
    own_validation: bool = False

    def to(self, device: torch.device | str) -> DataSplits:
        """Returns the splits on another device."""
        parts = {part: getattr(self, part).to(device) for part in ("train", "validation", "unlabeled")}
        return replace(self, **parts)


@dataclass(frozen=True)
class RawData:
    """The content of a data source: one pool of labeled images and, optionally, separate splits.

    Existing splits are used in full; missing splits are drawn from the pool.

    Attributes:
        pool: Labeled images from which missing splits are drawn.
        class_names: Name of each class.
        test: The test split, if the source has one.
        validation: The validation split, if the source has one.
        unlabeled: Unlabeled images of the source; `split_source` adds the images in the pool that no split uses.
        warnings: Warnings about the files.
    """

    pool: Split
    class_names: tuple[str, ...]
    test: Split | None = None
    validation: Split | None = None
    unlabeled: Split | None = None
    warnings: tuple[ConfigIssue, ...] = ()

    def own_parts(self, places: Mapping[str, str]) -> dict[str, tuple[str, int]]:
        """Returns, for each split that the source contains, its name in messages and its number of images.

        Args:
            places: Names to use for the splits in messages, for example their folders.
        """
        parts = {"validation": self.validation, "test": self.test, "unlabeled": self.unlabeled}
        return {name: (places[name], len(part)) for name, part in parts.items() if part is not None}


def to_unit(images: Tensor) -> Tensor:
    """Returns uint8 images as float32 in [0,1], always in new memory."""
    return images.to(torch.float32).div_(255)


def split_source(source: RawData, sizes: SplitSizes) -> tuple[DataSplits, Split]:
    """Divides the images of a source into disjoint, stratified splits.

    The test and validation splits are drawn from the pool, unless the source already contains them. The training images
    are drawn next, and the remaining images become unlabeled. Because the test images are drawn first, they do not
    depend on the sizes of the other splits.

    Args:
        source: The images of the source.
        sizes: Sizes and seed of the splits.

    Returns:
        The splits for training, and the test split.

    Raises:
        ConfigError: The pool has fewer images than the split sizes require; the message states possible sizes.
    """
    pool = _Pool(source.pool, source.class_names, sizes.seed)
    test = pool.draw("test", sizes.test_size) if source.test is None else source.test
    own = source.validation is not None
    validation = source.validation if source.validation is not None else pool.draw("validation", sizes.val_size)
    train, left = pool.draw("train", sizes.train_size), pool.left()
    identity = content_hash([train, validation, left, test], source.class_names, source.unlabeled)
    extra = [] if source.unlabeled is None else [source.unlabeled.images]
    images = joined([left.images, *extra])
    unlabeled = Split(images, torch.full((len(images),), -1))
    warnings = (*source.warnings, *_implausible(source, train, validation, test))
    return DataSplits(train, validation, unlabeled, source.class_names, identity, warnings, own), test


def _implausible(source: RawData, train: Split, validation: Split, test: Split) -> Iterator[ConfigIssue]:
    parts = {"train": train, "validation": validation, "test": test}
    drawn = {name for name in parts if getattr(source, name, None) is None}
    parts |= {} if source.unlabeled is None else {"unlabeled": source.unlabeled}
    return implausible(parts, drawn, source.class_names)


class _Pool:
    """Pool of labeled images from which splits are drawn without replacement."""

    def __init__(self, split: Split, class_names: tuple[str, ...], seed: int) -> None:
        self.split, self.labels, self.seed = split, split.labels.numpy(), seed
        self.rest = np.arange(len(split))
        self.classes = len(np.unique(self.labels))

    def draw(self, part: str, size: int | float | None) -> Split:
        """Draws a split, stratified by class.

        The last remaining image of a class is reserved for the training split.

        Args:
            part: Name of the split.
            size: A count or a share; None for all remaining images.

        Raises:
            ConfigError: The size is too large or too small; the message states possible sizes.
        """
        if size is None and not len(self.rest):
            raise ConfigError(f"data.{SETTING_OF[part]}: no images are left; lower data.val_size or data.test_size")
        count = len(self.rest) if size is None else count_of(size, len(self.split), self.classes)
        wanted = counted(count, "image") if isinstance(size, int) else f"{size} ({counted(count, 'image')})"
        alone = self._alone() if 0 < count < len(self.rest) else self.rest[:0]
        first = alone if part == "train" else alone[:0]
        others = self._drawn(np.setdiff1d(self.rest, alone), count - len(first), part, wanted)
        drawn = np.sort(np.concatenate([first, others]))
        self.rest = np.setdiff1d(self.rest, drawn)
        return self.split.take(drawn)

    def left(self) -> Split:
        """Returns the images that were not drawn for any split."""
        return self.split.take(self.rest)

    def _alone(self) -> np.ndarray:
        """Returns the index of each image that is the last remaining image of its class."""
        counts = np.bincount(self.labels[self.rest], minlength=1)
        alone: np.ndarray = self.rest[counts[self.labels[self.rest]] == 1]
        return alone

    def _drawn(self, pool: np.ndarray, count: int, part: str, wanted: str) -> np.ndarray:
        classes = len(np.unique(self.labels[pool]))
        if count > len(pool):
            raise ConfigError(f"data.{SETTING_OF[part]}: {wanted} are too many; {self._fits(part, classes)}")
        if count in (0, len(pool)):
            return pool[:count]
        if count < classes:
            raise ConfigError(
                f"data.{SETTING_OF[part]}: must be at least {self.classes} images, one per class, got {wanted}"
            )
        if len(pool) - count < classes:
            fits = self._fits(part, classes)
            raise ConfigError(
                f"data.{SETTING_OF[part]}: {wanted} leave fewer than one image per class for the other splits; {fits}"
            )
        from sklearn.model_selection import train_test_split  # the import is slow and rarely needed

        labels = self.labels[pool]
        drawn: np.ndarray = train_test_split(pool, train_size=count, stratify=labels, random_state=self.seed)[0]
        return drawn

    def _fits(self, part: str, classes: int) -> str:
        """Returns the end of an error message: the number of remaining images and the allowed sizes."""
        left, some = len(self.rest), len(self.rest) - classes
        fits = [f"{left} or null (all of them)"] if part == "train" and left else []
        fits += [f"at most {some} (leaves one image per class for the other splits)"] if some >= classes else []
        fix = f"set it to {', or '.join(fits)}" if fits else "add images, or lower the other sizes"
        return f"{left} of {len(self.split)} labeled images are left; {fix}"


def content_hash(parts: list[Split], class_names: tuple[str, ...], unlabeled: Split | None) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 hash of images, labels and class names.

    Args:
        parts: Labeled splits, in order.
        class_names: Name of each class.
        unlabeled: Unlabeled images of the source, if it has any.
    """
    digest = hashlib.sha256(repr(class_names).encode())
    for part in [*parts, *([] if unlabeled is None else [unlabeled])]:
        digest.update(part.content.encode())
        digest.update(part.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
