"""Crops, flips and erased rectangles for whole batches, with separate random numbers for each image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ensdistill.runtime.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

DRAWS = 10  # number of sizes drawn for a rectangle, as in torchvision; the first size that fits is used


class Boxes(NamedTuple):
    """One rectangle per image, in whole pixels.

    Attributes:
        top: First row, int64 (B,).
        left: First column, int64 (B,).
        height: Number of rows, int64 (B,).
        width: Number of columns, int64 (B,). If no rectangle fits, all four values are 0.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def random_boxes(images: Tensor, area: tuple[float, float], ratio: float, generator: torch.Generator) -> Boxes:
    """Returns a random rectangle in each image; position and area are uniform, the aspect ratio is log-uniform.

    Ten sizes are drawn for each image, and the first size that fits into the image is used.

    Args:
        images: Images (B,C,H,W).
        area: Smallest and largest area, as fractions of the image area.
        ratio: Largest aspect ratio; width / height lies between 1 / ratio and ratio.
        generator: Random generator on the device of the images.
    """
    count, height, width = len(images), *images.shape[2:]
    sizes = torch.rand(2, DRAWS, count, generator=generator, device=images.device)
    places = torch.rand(2, count, generator=generator, device=images.device)
    pixels = height * width * (area[0] + (area[1] - area[0]) * sizes[0])
    aspect = torch.exp(math.log(ratio) * (2 * sizes[1] - 1))
    rows, columns = (pixels / aspect).sqrt().round().long(), (pixels * aspect).sqrt().round().long()
    fits = (rows > 0) & (rows <= height) & (columns > 0) & (columns <= width)
    first = fits.int().argmax(0, keepdim=True)
    rows, columns = ((size * fits).gather(0, first)[0] for size in (rows, columns))
    top, left = _start(places[0], height - rows), _start(places[1], width - columns)
    found = rows > 0
    return Boxes(top * found, left * found, rows, columns)


def _start(place: Tensor, last: Tensor) -> Tensor:
    """Maps each position in [0,1) to a whole number in [0, last], int64 (B,)."""
    return (place * (last + 1)).long().minimum(last)  # the product can be rounded up to last + 1


def random_resized_crop(images: Tensor, scale: float, ratio: float, generator: torch.Generator) -> Tensor:
    """Returns a random crop of each image, resized to the image size; returns the image itself if no crop fits.

    Args:
        images: uint8 (B,C,H,W).
        scale: Smallest area of a crop, as a fraction of the image area; the largest is 1.
        ratio: Largest aspect ratio of a crop.
        generator: Random generator on the device of the images.

    Returns:
        uint8 (B,C,H,W).

    References:
        Szegedy et al. 2015, section 6.
    """
    return resized_crop(images, random_boxes(images, (scale, 1.0), ratio, generator))


def resized_crop(images: Tensor, boxes: Boxes) -> Tensor:
    """Returns a crop of each image, resized to the size of the image by bilinear interpolation.

    A crop is never larger than the image, so resizing never shrinks it, and antialiasing would have no effect. Pixels
    outside the crop do not affect the result.

    Args:
        images: uint8 (B,C,H,W).
        boxes: The crops; an empty box represents the whole image.

    Returns:
        uint8 (B,C,H,W), rounded to the nearest integer.
    """
    height, width = images.shape[2:]
    y = _centers(boxes.top, torch.where(boxes.height > 0, boxes.height, height), height)
    x = _centers(boxes.left, torch.where(boxes.width > 0, boxes.width, width), width)
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
    return to_bytes(F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False))


def _centers(start: Tensor, size: Tensor, length: int) -> Tensor:
    """Returns the position of each output pixel on one image axis, in [-1,1] as in `grid_sample`: (B,length)."""
    size = size[:, None]
    place = (torch.arange(length, device=start.device) + 0.5) * (size / length) - 0.5
    return (2 * (place.clamp(min=0).minimum(size - 1) + start[:, None]) + 1) / length - 1


def pad_and_crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Pads each image with zeros and returns one of its (2 pad + 1)^2 crops, chosen uniformly: uint8 (B,C,H,W)."""
    count, _, height, width = images.shape
    windows = F.pad(images, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view of all crops
    top, left = torch.randint(2 * pad + 1, (2, count), generator=generator, device=images.device)
    return windows[torch.arange(count, device=images.device), :, top, left]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image horizontally with probability one half; returns uint8 (B,C,H,W)."""
    mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Replaces a random rectangle in each image by random pixels, with a given probability per image.

    As in torchvision, the area is 2 to 33 % of the image, and the aspect ratio is 1/3.3 to 3.3. If no
    rectangle fits, nothing is erased.

    Args:
        images: uint8 (B,C,H,W).
        probability: Probability that a rectangle is erased in an image, in [0,1].
        generator: Random generator on the device of the images.

    Returns:
        uint8 (B,C,H,W).

    References:
        Zhong et al. 2020, Random erasing data augmentation, section 3.2, RE-R.
    """
    erased = torch.rand(len(images), generator=generator, device=images.device) < probability
    boxes = random_boxes(images, (0.02, 0.33), 3.3, generator)
    noise = torch.randint(256, images.shape, dtype=torch.uint8, generator=generator, device=images.device)
    rows = _inside(boxes.top, boxes.height, images.shape[2])
    columns = _inside(boxes.left, boxes.width, images.shape[3])
    inside = erased[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return torch.where(inside[:, None], noise, images)


def cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Returns the images with a black square around a random pixel of each image.

    On both axes, the square starts at center - side // 2. It is clipped at the image borders.

    References:
        DeVries and Taylor 2017, section 3.2. In the paper, pixels are normalized, so zero is the mean; here, zero is
        black.
    """
    rows, columns = (_band(images, axis, side, generator) for axis in (2, 3))
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def _band(images: Tensor, axis: int, side: int, generator: torch.Generator) -> Tensor:
    """Returns, for each image, a mask of the positions on one axis that the square covers: bool (B,length)."""
    length = images.shape[axis]
    center = torch.randint(length, (len(images),), generator=generator, device=images.device)
    return _inside(center - side // 2, torch.full_like(center, side), length)


def _inside(start: Tensor, size: Tensor, length: int) -> Tensor:
    """Returns, for each image, a mask of the positions on one axis inside an interval: bool (B,length)."""
    offset = torch.arange(length, device=start.device) - start[:, None]
    return (offset >= 0) & (offset < size[:, None])


def to_bytes(pixels: Tensor) -> Tensor:
    """Returns pixels in [0,255], rounded to the nearest integer, as uint8; overwrites its argument."""
    return pixels.round_().clamp_(0, 255).to(torch.uint8)
