"""Plausibility checks of images and labels from any source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol

from ensdistill.data.image_facts import largest_values
from ensdistill.data.sizes import SETTING_OF
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.lazy import torch
from ensdistill.runtime.text import counted, listed, verb

if TYPE_CHECKING:
    from torch import Tensor

    from ensdistill.data.shared_images import SharedImages


NAMES = {"train": "training", "validation": "validation", "unlabeled": "unlabeled", "test": "test"}
ORDER = ("train", "unlabeled", "validation", "test")
BLACK = 1  # an image whose largest value (of 255) is at most this counts as black
DARK = 31  # a split whose largest value (of 255) is at most this probably uses another scale


class Part(Protocol):
    """Images and labels of one split; see `Split`."""

    @property
    def images(self) -> Tensor | SharedImages:
        """uint8 images (N,C,H,W)."""

    @property
    def labels(self) -> Tensor:
        """Labels (N,)."""

    @property
    def hashes(self) -> list[bytes]:
        """Hash of the pixels of each image."""

    def __len__(self) -> int: ...


def label_number(label: Any, place: str) -> int:
    """Returns a label as an integer.

    Args:
        label: Label of one image, of any type.
        place: Name of the image in the error message.

    Raises:
        DataError: The label is not a whole number; 1.0 and strings are also rejected.
    """
    try:
        return int(label.__index__() if hasattr(label, "__index__") else label.item().__index__())
    except (TypeError, ValueError, AttributeError, RuntimeError):
        raise DataError(f"{place}: its label is {label!r}; give a whole number of at least 0") from None


def implausible(parts: Mapping[str, Part], drawn: Collection[str], names: Sequence[str]) -> Iterator[ConfigIssue]:
    """Yields a warning for each implausible property of a data set.

    Args:
        parts: Images and labels of the `train`, `validation` and `test` splits, and of `unlabeled` if it exists.
        drawn: Names of the splits that were drawn from the labeled images; if one lacks a class, the warning also
            suggests a larger size.
        names: Name of each class.

    Raises:
        DataError: All training images are black.
    """
    for part in ("train", "validation", "test"):
        yield from _without_images(part, parts[part].labels, part in drawn, names)
    for part, split in parts.items():
        if len(split):
            yield from _dark(part, largest_values(split.images))
    hashes = {part: split.hashes for part, split in parts.items()}
    yield from _in_two_parts(hashes)
    yield from _with_two_labels(hashes["train"], parts["train"].labels)


def _without_images(part: str, labels: Tensor, drawn: bool, names: Sequence[str]) -> Iterator[ConfigIssue]:
    counts = torch.bincount(labels, minlength=len(names))
    if len(labels) and (missing := [name for name, n in zip(names, counts, strict=True) if not n]):
        rule = f"{counted(len(missing), 'class')} without {NAMES[part]} images: {listed(missing)}"
        hint = f"add images, or raise data.{SETTING_OF[part]}" if drawn else "add images"
        yield ConfigIssue(("data", SETTING_OF[part] if drawn else part), rule, hint=hint)


def _dark(part: str, largest: Tensor) -> Iterator[ConfigIssue]:
    black, top = int((largest <= BLACK).sum()), int(largest.max())
    if top <= BLACK and part == "train":
        raise DataError("data: all training images are black; give values from 0 to 255, or floats from 0 to 1")
    if black:
        hint = "values from 0 to 1 that were rounded to integers look black, and so do 8-bit values in a 16-bit file"
        yield ConfigIssue(("data",), f"{black} of {len(largest)} {NAMES[part]} images {verb(black)} black", hint=hint)
    elif top <= DARK:
        rule = f"{NAMES[part]} images are nearly black: their largest value is {top} of 255"
        yield ConfigIssue(("data",), rule, hint="scale them so that white is 255")


def _in_two_parts(hashes: Mapping[str, list[bytes]]) -> Iterator[ConfigIssue]:
    """Yields warnings about images that two splits share; train and unlabeled may overlap without biasing metrics."""
    for one, other in combinations([part for part in ORDER if part in hashes], 2):
        if (one, other) == ("train", "unlabeled"):
            continue
        seen = set(hashes[one])
        if same := sum(content in seen for content in hashes[other]):
            which = f"{same} of {len(hashes[other])} {NAMES[other]} images {verb(same)}"
            rule = f"{which} also in the {NAMES[one]} split (same pixels)"
            yield ConfigIssue(("data",), rule, hint="remove them from one split; otherwise, metrics are too optimistic")


def _with_two_labels(hashes: list[bytes], labels: Tensor) -> Iterator[ConfigIssue]:
    found = defaultdict[bytes, set[int]](set)
    for content, label in zip(hashes, labels.tolist(), strict=True):
        found[content].add(label)
    if twice := sum(len(different) > 1 for different in found.values()):
        rule = f"{counted(twice, 'training image')} with copies that have a different label (same pixels)"
        yield ConfigIssue(("data",), rule, hint="remove the copies with the wrong label")
