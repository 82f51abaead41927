"""Random crops, mirror images and cutout for whole batches, on the device where the images are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import F, torch
from ensdistill.settings.base import Settings, setting

if TYPE_CHECKING:
    from torch import Tensor


class Augmentation(Settings):
    """The usual augmentation of CIFAR: a random crop of the zero-padded image, then its mirror image, then cutout.

    `pad: 4` with `flip: true` is that of He et al. 2016 (section 4.2) and of the papers distilled here, in the raw
    pixels. With all three at their defaults nothing is done.
    """

    pad: int = setting(0, "Zero pixels added on each side before a random crop of the old size.", ge=0, le=1024)
    flip: bool = setting(False, "Mirror each image left to right with probability one half.")
    cutout: int = setting(0, "Side of a square set to zero at a random place of each image; 0 for none.", ge=0, le=1024)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B,C,H,W) -> uint8 (B,C,H,W) in new memory; the same object where nothing is asked for.

        generator: on the images' device; every image has random numbers of its own, drawn in the order pad, flip,
        cutout, and only for what is asked for.
        """
        if self.pad:
            images = _crop(images, self.pad, generator)
        if self.flip:
            images = _flip(images, generator)
        if self.cutout:
            images = _cut_out(images, self.cutout, generator)
        return images


def _crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """One of the (2 pad + 1)^2 crops of each padded image, all equally likely."""
    count, _, height, width = images.shape
    windows = F.pad(images, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view of all crops
    top, left = torch.randint(2 * pad + 1, (2, count), generator=generator, device=images.device)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def _cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Zero in rows and columns from center - side // 2 on; the center is any pixel, so the square may be clipped.

    DeVries and Taylor 2017, section 3.2, whose zero is the mean of normalized pixels; here it is a black pixel.
    """
    rows, columns = (_band(images, axis, side, generator) for axis in (2, 3))
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def _band(images: Tensor, axis: int, side: int, generator: torch.Generator) -> Tensor:
    """Which places of an axis the square covers, for each image: bool (B,length)."""
    length = images.shape[axis]
    center = torch.randint(length, (len(images), 1), generator=generator, device=images.device)
    offset = torch.arange(length, device=images.device) - center + side // 2
    return (offset >= 0) & (offset < side)
