"""Real handwritten digits in artificial clutter: a task on which an ensemble clearly beats a single network.

Made from scikit-learn's 1,797 digits (`digits`), which are on disk with the package, as Mnih et al. 2014 ("Recurrent
Models of Visual Attention", section 4.1) make cluttered translated MNIST from MNIST.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from ensdistill.data.sizes import SplitSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.runtime.lazy import np, torch
from ensdistill.settings.base import setting

PARTS = ("train", "validation", "test", "unlabeled")  # the position is the number of a part's random stream
SHARES = (0.4, 0.2, 0.25, 0.15)  # of the digits of each class, whatever the number of images that is made from them

DIGIT_PIXELS = 8
TURN = 0.3  # largest rotation in radians, both ways
SCALE = (1.0, 1.5)  # pixels of the image for a pixel of the digit
INK = (0.7, 1.0)  # brightest pixel of a digit or fragment
PIECE = 4  # side of a fragment, in pixels of the image


class ClutteredDigits(SplitSizes, DataSource):
    """Digits that are rotated, scaled and placed at random among fragments of other digits, under Gaussian noise.

    A pure function of its settings. No digit stands behind images of two parts, neither as the digit nor as clutter.
    Classes are balanced. A larger number of images of a part begins with those of a smaller number.
    """

    kind: Literal["cluttered_digits"] = "cluttered_digits"
    seed: int = setting(0, "Seed of the images, and of the digits behind each part.", ge=0, le=2**32 - 1)
    size: int = setting(16, "Height and width of an image in pixels.", ge=12, le=256)
    clutter: int = setting(2, "Fragments of other digits in each image.", ge=0, le=1000)
    noise: float = setting(0.05, "Standard deviation of the noise, where white is 1.", ge=0, le=1)
    train_size: int = setting(1000, "Labeled training images.", ge=10, le=10_000_000)
    val_size: int = setting(1000, "Images for choosing settings.", ge=10, le=10_000_000)
    test_size: int = setting(4000, "Number of test images.", ge=10, le=10_000_000)
    unlabeled_size: int = setting(0, "Images without labels.", ge=0, le=10_000_000)

    def __call__(self) -> RawData:
        """Images uint8 (N,1,size,size) of four parts, ten classes."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        draw = partial(_part, bunch.images / 16, _digits_of_parts(bunch.target, self.seed), self)
        sizes = (self.train_size, self.val_size, self.test_size, self.unlabeled_size)
        train, validation, test, unlabeled = (draw(part, size) for part, size in zip(PARTS, sizes, strict=True))
        names = tuple(str(name) for name in bunch.target_names)
        return RawData(train, names, test=test, validation=validation, unlabeled=unlabeled)


def _digits_of_parts(labels: np.ndarray, seed: int) -> list[list[np.ndarray]]:
    """The digits (indices) behind each part, by class: disjoint, in the shares of `SHARES`."""
    rng = np.random.default_rng([seed, len(PARTS)])
    by_class = [rng.permutation(np.flatnonzero(labels == c)) for c in range(10)]
    ends = np.cumsum(SHARES)[:-1]
    cut = [np.split(own, np.round(ends * len(own)).astype(int)) for own in by_class]
    return [[own[part] for own in cut] for part in range(len(PARTS))]


def _part(
    digits: np.ndarray, behind: list[list[np.ndarray]], settings: ClutteredDigits, part: str, count: int
) -> Split:
    """The images of one part. Image n is of class n mod 10."""
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
    """Whole digits (N,8,8), turned, scaled and placed by u (N,5) in [0,1): images (N,size,size)."""
    angle, scale, ink = _looks(u)
    half = scale * DIGIT_PIXELS / 2
    center = half[:, None] + (size - 2 * half[:, None]) * u[:, 3:5]
    pixel = np.broadcast_to(np.arange(size), (len(u), size))
    inside = np.full((len(u), 2), DIGIT_PIXELS / 2)
    images: np.ndarray = ink[:, None, None] * _sampled(digits, pixel, pixel, center, inside, angle, scale)
    return images


def _add_fragment(images: np.ndarray, digits: np.ndarray, u: np.ndarray) -> None:
    """Lays a square piece of a digit (N,8,8) over each image (N,size,size), where it is brighter; u is (N,7)."""
    angle, scale, ink = _looks(u)
    corner = (u[:, 3:5] * (images.shape[-1] - PIECE + 1)).astype(int)
    rows, columns = (corner[:, axis, None] + np.arange(PIECE) for axis in (0, 1))
    inside = 2 + (DIGIT_PIXELS - 4) * u[:, 5:7]  # its middle in the digit: pieces of the border are empty
    piece = ink[:, None, None] * _sampled(digits, rows, columns, corner + PIECE / 2, inside, angle, scale)
    at = (np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :])
    images[at] = np.maximum(images[at], piece)


def _looks(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angle, scale and ink by the first three columns of u."""
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
    """Digits (N,8,8) seen at pixels rows (N,h) x columns (N,w), bilinear, black outside the digit: (N,h,w).

    The point `center` (N,2) of the image shows the point `inside` (N,2) of the digit.
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
