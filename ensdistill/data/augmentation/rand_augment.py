"""RandAugment: random operations on each image, all with the same magnitude.

torchvision and kornia draw the operations once per batch. Here, operations are drawn separately for each image, and
all images of a batch that receive the same operation are processed together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.data.augmentation.colors import brightness, contrast, saturation, sharpness
from ensdistill.data.augmentation.geometry import to_bytes
from ensdistill.runtime.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


def rand_augment(images: Tensor, operations: int, magnitude: float, generator: torch.Generator) -> Tensor:
    """Applies random operations, drawn uniformly from `OPERATIONS`, to each image.

    Args:
        images: uint8 (B,C,H,W).
        operations: Number of operations on each image.
        magnitude: Strength as a fraction of the maximum, in [0,1]; the sign is random.
        generator: Random generator on the device of the images.

    Returns:
        uint8 (B,C,H,W).

    References:
        Cubuk et al. 2020, RandAugment: Practical automated data augmentation with a reduced search space, section 3;
        operations and ranges as in torchvision. Images are rotated and sheared about their center, with bilinear
        interpolation; pixels outside the image are black.
    """
    shape, device = (operations, len(images)), images.device
    kinds = torch.randint(len(OPERATIONS), shape, generator=generator, device=device)
    signs = 2 * torch.randint(2, shape, generator=generator, device=device) - 1
    for kind, sign in zip(kinds, signs, strict=True):
        images = _apply(images, kind, magnitude * sign)
    return images


def _apply(images: Tensor, kinds: Tensor, strengths: Tensor) -> Tensor:
    """Applies one operation to each image (B,C,H,W); `kinds` (B,) are indices, `strengths` (B,) are in [-1,1]."""
    changed = images.clone()
    order, counts = kinds.argsort(stable=True), kinds.bincount(minlength=len(OPERATIONS)).tolist()
    for operation, chosen in zip(OPERATIONS, torch.split(order, counts), strict=True):
        if len(chosen):
            changed[chosen] = operation(images[chosen], strengths[chosen])
    return changed


# --- operations: uint8 (B,C,H,W) and strengths (B,) in [-1,1] -> uint8 (B,C,H,W) --------------------------------------


def identity(images: Tensor, strength: Tensor) -> Tensor:
    """Returns the images unchanged."""
    return images


def shear_x(images: Tensor, strength: Tensor) -> Tensor:
    """Shifts rows relative to each other, by up to 0.3 pixels per row."""
    height, width = images.shape[2:]
    return _resample(images, xy=0.3 * strength * height / width)


def shear_y(images: Tensor, strength: Tensor) -> Tensor:
    """Shifts columns relative to each other, by up to 0.3 pixels per column."""
    height, width = images.shape[2:]
    return _resample(images, yx=0.3 * strength * width / height)


def translate_x(images: Tensor, strength: Tensor) -> Tensor:
    """Moves images horizontally by up to 150/331 of the image width."""
    return _resample(images, x=2 * 150 / 331 * strength)


def translate_y(images: Tensor, strength: Tensor) -> Tensor:
    """Moves images vertically by up to 150/331 of the image height."""
    return _resample(images, y=2 * 150 / 331 * strength)


def rotate(images: Tensor, strength: Tensor) -> Tensor:
    """Rotates images about their center by up to 30 degrees."""
    height, width = images.shape[2:]
    angle = torch.deg2rad(30 * strength)
    sine = angle.sin()
    return _resample(images, xx=angle.cos(), xy=sine * height / width, yx=-sine * width / height, yy=angle.cos())


def _resample(
    images: Tensor,
    xx: Tensor | float = 1.0,
    xy: Tensor | float = 0.0,
    x: Tensor | float = 0.0,
    yx: Tensor | float = 0.0,
    yy: Tensor | float = 1.0,
    y: Tensor | float = 0.0,
) -> Tensor:
    """Samples output pixel (u, v) of each image at (xx u + xy v + x, yx u + yy v + y); coordinates are in [-1,1]."""
    entries = [torch.as_tensor(one, device=images.device).float().expand(len(images)) for one in (xx, xy, x, yx, yy, y)]
    grid = F.affine_grid(torch.stack(entries, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return to_bytes(F.grid_sample(images.float(), grid, align_corners=False))


def change_brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Multiplies the brightness by a factor from 0.1 to 1.9."""
    return to_bytes(brightness(images.float(), 1 + 0.9 * strength))


def change_contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Multiplies the contrast by a factor from 0.1 to 1.9."""
    return to_bytes(contrast(images.float(), 1 + 0.9 * strength))


def change_color(images: Tensor, strength: Tensor) -> Tensor:
    """Multiplies the saturation by a factor from 0.1 to 1.9."""
    return to_bytes(saturation(images.float(), 1 + 0.9 * strength))


def change_sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Multiplies the sharpness by a factor from 0.1 to 1.9."""
    return to_bytes(sharpness(images.float(), 1 + 0.9 * strength))


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Keeps the most significant bits of each value: 8 bits at strength 0, 4 bits at full strength."""
    dropped = (4 * strength.abs()).round().to(torch.uint8)[:, None, None, None]
    return (images >> dropped) << dropped


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Inverts pixels at or above a threshold, which decreases from 255 to 0 as the strength increases."""
    threshold = 255 * (1 - strength.abs())[:, None, None, None]
    return torch.where(images >= threshold, 255 - images, images)


def autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    """Stretches each channel to the range from black to white; a channel with a single value is unchanged."""
    low, high = images.amin((2, 3), keepdim=True).float(), images.amax((2, 3), keepdim=True).float()
    stretched = to_bytes((images - low) * (255 / (high - low).clamp(min=1)))
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Equalizes the histogram of each channel, as in Pillow."""
    flat = images.flatten(2).long()
    count = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=images.device)
    count.scatter_add_(2, flat, torch.ones_like(flat))
    brightest = images.amax((2, 3)).long()[:, :, None]
    step = (flat.shape[2] - count.gather(2, brightest)) // 255
    table = ((step // 2 + count.cumsum(2) - count) // step.clamp(min=1)).clamp(max=255)
    equalized = table.gather(2, flat).to(torch.uint8).view_as(images)
    return torch.where(step[..., None] > 0, equalized, images)


OPERATIONS = (
    *(identity, shear_x, shear_y, translate_x, translate_y, rotate, change_brightness, change_color, change_contrast),
    *(change_sharpness, posterize, solarize, autocontrast, equalize),
)
