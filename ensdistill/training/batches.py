"""Training batches: order, augmentation, and the teachers or cached teacher logits for each batch."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.data.splits import to_unit
from ensdistill.methods.members import MultiClassifier
from ensdistill.runtime.randomness import RandomStreams
from ensdistill.training.batch_images import batch_images
from ensdistill.training.teacher_logits import CachedTeachers, TeacherLogitCache

UNLABELED_STREAM = "unlabelled"  # part of the shuffling seed; a different string would change all results


class Batch(NamedTuple):
    """Images, labels and teachers of one step; unlabeled images come last and have label -1.

    Attributes:
        teachers: The teachers for these images; they map images to logits (M,B,classes).
        images: Images (B,C,H,W) in [0,1].
        labels: Class indices (B,).
    """

    teachers: MultiClassifier
    images: Tensor
    labels: Tensor


class Batches:
    """Batches of one run; the batches of an epoch depend only on the settings, the data and the epoch number.

    Attributes:
        steps: Number of batches in an epoch.
    """

    def __init__(self, config: Config, data: DataSplits, cache: TeacherLogitCache) -> None:
        self.steps = len(data.train) // config.training.batch_size
        self._config, self._data, self._cache = config, data, cache
        self._device = data.train.images.device

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the shuffled and augmented batches of an epoch; epochs are numbered from 1."""
        training, data = self._config.training, self._data
        labeled = self._order("order", number, len(data.train), training.batch_size)
        unlabeled = self._order(UNLABELED_STREAM, number, len(data.unlabeled), training.unlabeled_batch_size)
        uint8 = batch_images([data.train.images, data.unlabeled.images], [labeled, unlabeled])
        chance = RandomStreams.of(self._config.seed, "augmentation", number, self._device).device
        for some, others, images in zip(labeled, unlabeled, uint8, strict=True):
            labels = torch.cat([data.train.labels[some], data.unlabeled.labels[others]])
            yield Batch(self._teachers(some, others), to_unit(training.augmentation(images, chance)), labels)

    def refresh(self) -> Iterator[Tensor]:
        """Returns one epoch of training images in batches, without augmentation, to compute BatchNorm statistics.

        The order is random, because image folders are sorted by class, and statistics from a batch with a single class
        are not representative. The order is the same in every epoch.
        """
        train = self._data.train
        order = self._order("refresh", 0, len(train), self._config.training.batch_size)
        return (train[batch][0] for batch in order)

    def _teachers(self, labeled: Tensor, unlabeled: Tensor) -> MultiClassifier:
        """Returns the teachers for a batch: the ensemble itself, or its cached logits."""
        if self._logits is None:
            return self._cache.ensemble
        return CachedTeachers(self._logits[:, torch.cat([labeled, len(self._data.train) + unlabeled])])

    @cached_property
    def _logits(self) -> Tensor | None:
        """Teacher logits of all images, for all epochs; None if the images change at every step."""
        return self._cache.logits(self._data, self._config)

    def _order(self, purpose: str, epoch: int, images: int, size: int) -> list[Tensor]:
        """Returns the image indices of each batch in an epoch; every pass over the images has a new random order."""
        shuffle = RandomStreams.of(self._config.seed, purpose, epoch, self._device).host
        rounds = math.ceil(self.steps * size / max(1, images))
        order = [torch.randperm(images, generator=shuffle) for _ in range(rounds)]
        flat = torch.cat([torch.empty(0, dtype=torch.long), *order]).to(self._device)
        return [flat[n * size : (n + 1) * size] for n in range(self.steps)]
