"""Changes of brightness, contrast, saturation and sharpness, with a separate factor for each image.

All changes have the form x' = clip(base + factor (x - base), 0, 255), with pixels in [0,255]. They differ only in
the base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.data.augmentation.geometry import to_bytes
from ensdistill.runtime.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow and torchvision


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Randomly changes the brightness, contrast and saturation of images, in this order.

    A separate factor is drawn for each image and each property, uniformly from [1 - strength, 1 + strength].

    Args:
        images: uint8 (B,C,H,W).
        strength: Largest relative change, in [0,1].
        generator: Random generator on the device of the images.

    Returns:
        uint8 (B,C,H,W).
    """
    draws = torch.rand(3, len(images), generator=generator, device=images.device)
    factors = 1 + strength * (2 * draws - 1)
    pixels = brightness(images.float(), factors[0])
    pixels = saturation(contrast(pixels, factors[1]), factors[2])
    return to_bytes(pixels)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiplies pixels (B,C,H,W) by the factor (B,) of their image and clips the result to [0,255]."""
    return (pixels * factor[:, None, None, None]).clamp_(0, 255)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the distance of each pixel from the image's mean gray by the factor; shapes as in `brightness`."""
    return _blend(_gray(pixels).mean((2, 3), keepdim=True), pixels, factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the distance of each pixel from its gray value by the factor; gray images are unchanged."""
    return _blend(_gray(pixels), pixels, factor) if pixels.shape[1] == 3 else pixels


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Multiplies the distance of each pixel from its smoothed value by the factor; border pixels are unchanged."""
    height, width = pixels.shape[2:]
    if min(height, width) < 3:
        return pixels
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=pixels.device) / 13  # Pillow's kernel
    smooth = pixels.clone()
    channels = pixels.flatten(0, 1)[:, None]
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(channels, kernel[None, None]).view(*pixels.shape[:2], height - 2, width - 2)
    return _blend(smooth, pixels, factor)


def _gray(pixels: Tensor) -> Tensor:
    """Returns the luma of color images, or the channel mean of other images: (B,1,H,W)."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = (weight * pixels[:, n : n + 1] for n, weight in enumerate(LUMA))
    return red + green + blue


def _blend(base: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(base, pixels, factor[:, None, None, None]).clamp_(0, 255)
