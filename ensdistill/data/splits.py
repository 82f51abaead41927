"""Disjoint, stratified splits by seed, and their content hash."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.settings import Settings, setting


@dataclass(frozen=True)
class Split:
    """Images and labels of one part. Never written to: the memory may be shared between processes."""

    images: Tensor  # uint8 (N,C,H,W)
    labels: Tensor  # int64 (N,), -1 where there is none

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: "Tensor | slice") -> tuple[Tensor, Tensor]:
        """A batch: float images (B,C,H,W) in [0,1] and labels (B,)."""
        return to_unit(self.images[index]), self.labels[index]

    def take(self, index: np.ndarray) -> "Split":
        """The part with these indices."""
        chosen = torch.as_tensor(index)
        return Split(self.images[chosen], self.labels[chosen])

    def to(self, device: torch.device | str) -> "Split":
        """The same on another device."""
        return Split(self.images.to(device), self.labels.to(device))

    def channel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, (C,) each, of the images in [0,1]; new tensors at every call."""
        mean, variance = self._moments
        return mean.float(), variance.clamp(min=1e-8).sqrt().float()

    @cached_property
    def content(self) -> str:
        """Hash of the images themselves, in their order."""
        images = self.images.contiguous().cpu().numpy()
        return f"{images.shape} {hashlib.sha256(images.data).hexdigest()}"

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance in float64. Kept, because every network that is built for these images asks for them."""
        counts = torch.stack([torch.bincount(c.flatten().long(), minlength=256) for c in self.images.unbind(1)])
        share = counts.double() / counts.sum(1, keepdim=True)
        level = torch.arange(256, device=counts.device).double() / 255
        mean = share @ level
        return mean, share @ level.square() - mean.square()


@dataclass(frozen=True)
class Data:
    """What a training run may see: no test images here."""

    train: Split
    validation: Split
    unlabelled: Split
    class_names: tuple[str, ...]
    identity: str  # content hash over all splits, test included
    warnings: tuple[ConfigIssue, ...] = ()  # what seems wrong with these images

    def to(self, device: torch.device | str) -> "Data":
        """The same on another device."""
        parts = {part: getattr(self, part).to(device) for part in ("train", "validation", "unlabelled")}
        return replace(self, **parts)


@dataclass(frozen=True)
class Source:
    """What a data source holds: one pool of labelled images and, where the source has them, parts of its own.

    A part of its own is taken whole; the pool is drawn from only for those that are missing.
    """

    pool: Split
    class_names: tuple[str, ...]
    test: Split | None = None
    validation: Split | None = None
    unlabelled: Split | None = None  # joins what the split leaves over
    warnings: tuple[ConfigIssue, ...] = ()  # what seems wrong with the files


class Sizes(Settings):
    """How many images go where; drawn from the pool in its own shares of classes. What is left is unlabelled."""

    seed: int = setting(0, "Seed of the split.", ge=0, le=2**32 - 1)
    train: int = setting(45_000, "Labelled training images.", ge=2)
    validation: int = setting(5_000, "Images for choosing settings.", ge=2)
    test: int = setting(0, "Images for the last look; ignored where the source has a test part of its own.", ge=0)

    def sizes(self) -> "Sizes":
        """These four numbers alone."""
        return Sizes(seed=self.seed, train=self.train, validation=self.validation, test=self.test)


class Readable(Protocol):
    """What the settings of a data source can do: read it, and say how to cut it."""

    def __call__(self) -> Source:
        """All images and labels. Raises DataError if they cannot be read."""

    def sizes(self) -> Sizes:
        """How many images go where."""


def to_unit(images: Tensor) -> Tensor:
    """uint8 images -> float32 in [0,1]; always new memory."""
    return images.to(torch.float32).div_(255)


def split_source(source: Source, sizes: Sizes) -> tuple[Data, Split]:
    """Cuts the pool into test, validation (unless the source has them), training and the rest, in that order."""
    rest = np.arange(len(source.pool))
    labels = source.pool.labels.numpy()
    if source.test is None:
        test_index, rest = _draw(rest, labels, sizes.test, sizes.seed, "test")
        test = source.pool.take(test_index)
    else:
        test = source.test
    if source.validation is None:
        validation_index, rest = _draw(rest, labels, sizes.validation, sizes.seed, "validation")
        validation = source.pool.take(validation_index)
    else:
        validation = source.validation
    train_index, rest = _draw(rest, labels, sizes.train, sizes.seed, "train")
    train, left = source.pool.take(train_index), source.pool.take(rest)
    identity = _content_hash([train, validation, left, test], source.class_names, source.unlabelled)
    extra = [] if source.unlabelled is None else [source.unlabelled.images]
    images = torch.cat([left.images, *extra])
    unlabelled = Split(images, torch.full((len(images),), -1))
    return Data(train, validation, unlabelled, source.class_names, identity, source.warnings), test


def _draw(pool: np.ndarray, labels: np.ndarray, count: int, seed: int, part: str) -> tuple[np.ndarray, np.ndarray]:
    """`count` indices of the pool, stratified, and the others."""
    classes = len(np.unique(labels[pool])) if len(pool) else 0
    if count > len(pool) or 0 < count < classes:
        raise ConfigError(f"data.{part}: {count} images of {classes} classes wanted, {len(pool)} are left to draw from")
    if count == len(pool):
        return pool, pool[:0]
    if len(pool) - count < classes:
        raise ConfigError(f"data.{part}: {count} of {len(pool)} images leave fewer than one a class; take all or less")
    if count == 0:
        return pool[:0], pool
    if np.bincount(labels[pool])[labels[pool]].min() < 2:
        raise ConfigError(f"data.{part}: a class has one image left, too few to draw from; add images or take all")
    from sklearn.model_selection import train_test_split  # here: a slow import that few commands need

    drawn, rest = train_test_split(pool, train_size=count, stratify=labels[pool], random_state=seed)
    return np.sort(drawn), np.sort(rest)


def _content_hash(parts: list[Split], class_names: tuple[str, ...], unlabelled: Split | None) -> str:
    digest = hashlib.sha256(repr(class_names).encode())
    for part in [*parts, *([] if unlabelled is None else [unlabelled])]:
        digest.update(repr(tuple(part.images.shape)).encode())
        digest.update(part.images.contiguous().numpy().tobytes())
        digest.update(part.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
