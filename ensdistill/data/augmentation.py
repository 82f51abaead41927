"""Random crops, horizontal flips and cutout of whole batches, on the device of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import F, torch
from ensdistill.settings.base import Settings, setting

if TYPE_CHECKING:
    from torch import Tensor


class Augmentation(Settings):
    """The usual augmentation of CIFAR: a random crop of the zero-padded image, a random flip, then cutout.

    `pad: 4` with `flip: true` is the augmentation of the papers on ensemble distillation, applied to raw pixels. With
    the default settings, images are unchanged.

    References:
        He et al. 2016, Deep residual learning for image recognition, section 4.2 (`pad: 4`, `flip: true`).
    """

    pad: int = setting(
        0,
        "Zero pixels added on each side before a random crop to the original size; 0 for none.",
        ge=0,
        le=1024,
    )
    flip: bool = setting(False, "Mirror each image horizontally with probability one half.")
    cutout: int = setting(
        0, "Side in pixels of a square that is set to zero at a random place of each image; 0 for none.", ge=0, le=1024
    )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns augmented images.

        Args:
            images: uint8 (B,C,H,W).
            generator: Random generator on the device of the images. Each image has its own random numbers. They are
                drawn in the order pad, flip, cutout, and only for operations that are enabled.

        Returns:
            uint8 (B,C,H,W) in new memory; the same object if all operations are disabled.
        """
        if self.pad:
            images = _crop(images, self.pad, generator)
        if self.flip:
            images = _flip(images, generator)
        if self.cutout:
            images = _cut_out(images, self.cutout, generator)
        return images


def _crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Returns one of the (2 pad + 1)^2 crops of each padded image, each with equal probability."""
    count, _, height, width = images.shape
    windows = F.pad(images, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view of all crops
    top, left = torch.randint(2 * pad + 1, (2, count), generator=generator, device=images.device)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def _cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Returns images with a black square that starts at center - side // 2. Any pixel can be the center.

    DeVries and Taylor 2017, section 3.2. In the paper, pixels are normalized, so zero is the mean; here zero is black.
    """
    rows, columns = (_band(images, axis, side, generator) for axis in (2, 3))
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def _band(images: Tensor, axis: int, side: int, generator: torch.Generator) -> Tensor:
    """Returns a mask of the rows or columns that the square of each image covers: bool (B,length)."""
    length = images.shape[axis]
    center = torch.randint(length, (len(images), 1), generator=generator, device=images.device)
    offset = torch.arange(length, device=images.device) - center + side // 2
    return (offset >= 0) & (offset < side)
