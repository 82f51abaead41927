"""Classifies image files one batch at a time, so that memory use does not depend on the number of files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ensdistill.data.image_files import MODES, ImageFile, quiet
from ensdistill.errors import DataError
from ensdistill.runtime.lazy import np

if TYPE_CHECKING:
    from ensdistill.export.classifier import Classifier

BATCH, VALUES = 128, 1 << 25  # a batch has at most BATCH images and at most VALUES pixel values


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one image.

    Attributes:
        file: Path of the image.
        probabilities: Probability of each class, float32 (classes,).
    """

    file: str
    probabilities: np.ndarray

    def top(self, count: int) -> list[int]:
        """Returns the indices of the most likely classes, most likely first; ties keep the order of the classes."""
        return [int(k) for k in np.argsort(-self.probabilities, kind="stable")[:count]]


Broken = Callable[[str], None]  # called with the error message for each unreadable image
Remark = Callable[[str, str], None]  # called with two strings: a remark about an image, and the path of this image


def classify(
    classifier: Classifier, files: Iterable[ImageFile], broken: Broken, remark: Remark | None = None
) -> Iterator[ImagePrediction]:
    """Yields the prediction for each image, in order; reads one batch at a time.

    Args:
        classifier: The classifier.
        files: The images.
        broken: Called with the error message for each image that cannot be read; the image is skipped.
        remark: Called with two strings: a remark about an image, and the path of this image.

    Raises:
        DataError: The classifier requires images that are neither gray nor RGB.
    """
    if classifier.shape[0] not in MODES:
        raise DataError(
            f"{classifier.path}: requires images with {classifier.shape[0]} channels, but image files have 1 or 3; "
            "call the classifier from Python instead"
        )
    files, size = iter(files), max(1, min(BATCH, VALUES // math.prod(classifier.shape)))
    while batch := list(islice(files, size)):
        read = list(_read(batch, classifier, broken, remark))
        if read:
            probabilities = classifier(np.stack([pixels for _, pixels in read]).transpose(0, 2, 3, 1))
            yield from (ImagePrediction(place, p) for (place, _), p in zip(read, probabilities, strict=True))


def _read(
    files: Sequence[ImageFile], classifier: Classifier, broken: Broken, remark: Remark | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the path and the pixels, uint8 (C,H,W), of each image that can be read."""
    for file in files:
        try:
            with quiet():
                read = file.read(classifier.shape, classifier.resize)
        except DataError as error:
            broken(str(error))
            continue
        if remark:
            for what in read.remarks:
                remark(what, file.place)
        yield file.place, read.pixels
