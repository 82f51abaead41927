"""Handwritten digits in artificial clutter: a task on which an ensemble is clearly better than a single network.

The images are generated from the 1,797 digits that ship with scikit-learn (`digits`). They resemble the cluttered
translated MNIST data set (Mnih et al. 2014, Recurrent models of visual attention, section 4.1).
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from ensdistill.data.sizes import SplitSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.runtime.lazy import np, torch
from ensdistill.settings.base import setting

PARTS = ("train", "validation", "test", "unlabeled")  # the index of a split is part of its random seed
SHARES = (0.4, 0.2, 0.25, 0.15)  # share of each class's original digits per split, regardless of split size

DIGIT_PIXELS = 8
TURN = 0.3  # largest rotation in radians, in either direction
SCALE = (1.0, 1.5)  # range of the scale, in image pixels per digit pixel
INK = (0.7, 1.0)  # range of the maximum brightness of a digit or fragment; white is 1
PIECE = 4  # side length of a fragment, in image pixels


class ClutteredDigits(SplitSizes, DataSource):
    """Digits that are randomly rotated and scaled, placed among fragments of other digits, and overlaid with noise.

    The images depend only on the settings. Each original digit is used in only one split, whether as a digit or as
    clutter. Classes are balanced. Increasing the size of a split does not change its existing images.

    References:
        Mnih et al. 2014, Recurrent models of visual attention, section 4.1 (cluttered translated MNIST).
    """

    kind: Literal["cluttered_digits"] = "cluttered_digits"
    seed: int = setting(0, "Random seed for creating the images and splitting the original digits.", ge=0, le=2**32 - 1)
    size: int = setting(16, "Height and width of an image in pixels.", ge=12, le=256)
    clutter: int = setting(2, "Number of fragments of other digits in each image.", ge=0, le=1000)
    noise: float = setting(0.05, "Standard deviation of the Gaussian noise; black is 0, white is 1.", ge=0, le=1)
    train_size: int = setting(1000, "Number of labeled training images.", ge=10, le=10_000_000)
    val_size: int = setting(1000, "Number of validation images.", ge=10, le=10_000_000)
    test_size: int = setting(4000, "Number of test images.", ge=10, le=10_000_000)
    unlabeled_size: int = setting(0, "Number of unlabeled images.", ge=0, le=10_000_000)

    def __call__(self) -> RawData:
        """Returns four splits of uint8 images (N,1,size,size) with ten classes."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        draw = partial(_part, bunch.images / 16, _digits_of_parts(bunch.target, self.seed), self)
        sizes = (self.train_size, self.val_size, self.test_size, self.unlabeled_size)
        train, validation, test, unlabeled = (draw(part, size) for part, size in zip(PARTS, sizes, strict=True))
        names = tuple(str(name) for name in bunch.target_names)
        return RawData(train, names, test=test, validation=validation, unlabeled=unlabeled)


def _digits_of_parts(labels: np.ndarray, seed: int) -> list[list[np.ndarray]]:
    """Returns the indices of the original digits of each split and class; splits are disjoint and sized by `SHARES`."""
    rng = np.random.default_rng([seed, len(PARTS)])
    by_class = [rng.permutation(np.flatnonzero(labels == c)) for c in range(10)]
    ends = np.cumsum(SHARES)[:-1]
    cut = [np.split(own, np.round(ends * len(own)).astype(int)) for own in by_class]
    return [[own[part] for own in cut] for part in range(len(PARTS))]


def _part(
    digits: np.ndarray, behind: list[list[np.ndarray]], settings: ClutteredDigits, part: str, count: int
) -> Split:
    """Returns the images and labels of one split; image n has class n mod 10."""
    number = PARTS.index(part)
    own = behind[number]
    places, pieces, noise = (np.random.default_rng([settings.seed, number, stream]) for stream in range(3))
    labels = np.arange(count) % 10

    u = places.random((count, 6))
    which = np.array([own[c][int(x * len(own[c]))] for c, x in zip(labels, u[:, 0], strict=True)], dtype=int)
    images = _placed(digits[which], u[:, 1:], settings.size)
    every = np.concatenate(own)
    for v in np.moveaxis(pieces.random((count, settings.clutter, 8)), 1, 0):
        _add_fragment(images, digits[every[(v[:, 0] * len(every)).astype(int)]], v[:, 1:])
    images += settings.noise * noise.standard_normal(images.shape)
    pixels = np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)
    known = labels if part != "unlabeled" else np.full(count, -1)
    return Split(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(known.astype(np.int64)))


def _placed(digits: np.ndarray, u: np.ndarray, size: int) -> np.ndarray:
    """Rotates and scales digits (N,8,8) and places them on images (N,size,size); u (N,5) in [0,1) sets how."""
    angle, scale, ink = _looks(u)
    half = scale * DIGIT_PIXELS / 2
    center = half[:, None] + (size - 2 * half[:, None]) * u[:, 3:5]
    pixel = np.broadcast_to(np.arange(size), (len(u), size))
    inside = np.full((len(u), 2), DIGIT_PIXELS / 2)
    images: np.ndarray = ink[:, None, None] * _sampled(digits, pixel, pixel, center, inside, angle, scale)
    return images


def _add_fragment(images: np.ndarray, digits: np.ndarray, u: np.ndarray) -> None:
    """Overlays a fragment of a digit (N,8,8) on each image (N,size,size) by pixelwise maximum; u is (N,7) in [0,1)."""
    angle, scale, ink = _looks(u)
    corner = (u[:, 3:5] * (images.shape[-1] - PIECE + 1)).astype(int)
    rows, columns = (corner[:, axis, None] + np.arange(PIECE) for axis in (0, 1))
    inside = 2 + (DIGIT_PIXELS - 4) * u[:, 5:7]  # center of the fragment, away from the digit's empty border
    piece = ink[:, None, None] * _sampled(digits, rows, columns, corner + PIECE / 2, inside, angle, scale)
    at = (np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :])
    images[at] = np.maximum(images[at], piece)


def _looks(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the angle, scale and brightness that the first three columns of u specify."""
    return (2 * u[:, 0] - 1) * TURN, SCALE[0] + (SCALE[1] - SCALE[0]) * u[:, 1], INK[0] + (INK[1] - INK[0]) * u[:, 2]


def _sampled(
    digits: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    center: np.ndarray,
    inside: np.ndarray,
    angle: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """Samples rotated and scaled digits (N,8,8) at image rows (N,h) and columns (N,w); returns values (N,h,w).

    Values are interpolated bilinearly; points outside a digit are black. The point `center` (N,2) of the image is
    mapped to the point `inside` (N,2) of the digit.
    """
    y = (rows + 0.5 - center[:, :1])[:, :, None]
    x = (columns + 0.5 - center[:, 1:])[:, None, :]
    cosine, sine = (f(angle)[:, None, None] / scale[:, None, None] for f in (np.cos, np.sin))
    row = inside[:, :1, None] + cosine * y + sine * x - 0.5
    column = inside[:, 1:, None] - sine * y + cosine * x - 0.5
    framed = np.pad(digits, ((0, 0), (1, 1), (1, 1)))
    row, column = (np.clip(place, -1, DIGIT_PIXELS) + 1 for place in (row, column))
    top, left = (np.minimum(np.floor(place).astype(int), DIGIT_PIXELS) for place in (row, column))
    down, right = row - top, column - left
    image = np.arange(len(digits))[:, None, None]
    above = framed[image, top, left] * (1 - right) + framed[image, top, left + 1] * right
    below = framed[image, top + 1, left] * (1 - right) + framed[image, top + 1, left + 1] * right
    sampled: np.ndarray = above * (1 - down) + below * down
    return sampled
