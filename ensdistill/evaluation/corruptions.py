"""Image corruptions, computed on demand, to measure the robustness of a network.

This is a small set of corruptions, after Hendrycks and Dietterich 2019 (Benchmarking neural network robustness to
common corruptions and perturbations). Noise, brightness and contrast use the paper's constants for CIFAR-10-C.
The strengths of blur and pixelation are relative to the side length of the image, so that they apply to images of any
size. The set is NOT CIFAR-10-C, and results are not comparable with results on CIFAR-10-C.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ensdistill.data.splits import to_unit
from ensdistill.errors import ConfigError
from ensdistill.runtime.lazy import F, torch
from ensdistill.settings.validation import closest_match

if TYPE_CHECKING:
    from torch import Tensor

SEVERITIES = range(1, 6)
CHUNK = 1024  # number of images converted to float at a time; float requires four times the memory of uint8


@dataclass(frozen=True)
class Corruption:
    """A corruption and its strengths.

    Attributes:
        apply: Images (B,C,H,W) in [0,1], strength, generator -> corrupted images; `corrupt` clips them to [0,1].
        strengths: Strength at each severity from 1 to 5.
    """

    apply: Callable[[Tensor, float, torch.Generator], Tensor]
    strengths: tuple[float, float, float, float, float]


def corrupt(images: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Returns corrupted copies of images.

    Args:
        images: uint8 images of shape (N,C,H,W).
        name: One of `CORRUPTIONS`.
        severity: From 1 (mildest) to 5 (most severe).
        seed: Seed of the noise; equal seeds give equal noise at every severity.

    Returns:
        New uint8 images of shape (N,C,H,W) on the same device; the given images are not modified.

    Raises:
        ConfigError: The name or the severity is unknown.
    """
    _check(name, severity)
    corruption = CORRUPTIONS[name]
    strength = corruption.strengths[severity - 1]
    generator = torch.Generator(device=images.device).manual_seed(seed)
    chunks = [corruption.apply(to_unit(chunk), strength, generator) for chunk in torch.split(images, CHUNK)]
    return torch.cat([(chunk.clamp(0, 1) * 255).round().to(torch.uint8) for chunk in chunks])


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Returns x + sigma n, n ~ N(0, I)."""
    return x + sigma * torch.randn(x.shape, generator=generator, device=x.device)


def gaussian_blur(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Convolves images with a Gaussian truncated at 4 sigma, where sigma is `share` times the shorter image side.

    Each image is padded with copies of its border pixels.
    """
    sigma = share * min(x.shape[2:])
    radius = math.ceil(4 * sigma)
    offset = torch.arange(-radius, radius + 1, device=x.device) / sigma
    kernel = (-offset.square() / 2).softmax(0)
    flat = F.pad(x.flatten(0, 1).unsqueeze(1), (radius,) * 4, mode="replicate")  # (B C,1,H,W): separate channels
    return F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1)).view_as(x)


def brightness(x: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    """Changes the HSV value V (maximum over channels) to min(V + shift, 1) and keeps hue and saturation.

    Black becomes gray.
    """
    value = x.amax(1, keepdim=True)
    brighter = (value + shift).clamp(max=1)
    return torch.where(value > 0, x * brighter / value, brighter)


def contrast(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Returns mean + factor (x - mean), where the mean is computed for each image and channel."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + factor * (x - mean)


def pixelate(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Divides each image into a grid of squares, and fills each square with the mean of its pixels.

    `share` is the number of squares divided by the number of pixels along each axis. A pixel that overlaps two
    squares gets the mean of both values, weighted by overlap area.
    """
    rows, columns = (_coarse(side, max(1, round(share * side)), x) for side in x.shape[2:])
    return rows @ x @ columns


def _coarse(side: int, cells: int, like: Tensor) -> Tensor:
    """Returns a symmetric matrix (side,side) that averages the pixels in each of the `cells` cells; rows sum to one."""
    pixel = torch.arange(side, device=like.device, dtype=like.dtype)
    edge = torch.arange(cells + 1, device=like.device, dtype=like.dtype)[:, None] * side / cells
    overlap = (torch.minimum(edge[1:], pixel + 1) - torch.maximum(edge[:-1], pixel)).clamp(min=0)  # (cells,side)
    return overlap.T @ overlap * cells / side


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "gaussian_blur": Corruption(gaussian_blur, (0.04, 0.05, 0.06, 0.08, 0.10)),
    "brightness": Corruption(brightness, (0.05, 0.10, 0.15, 0.20, 0.30)),
    "contrast": Corruption(contrast, (0.75, 0.50, 0.40, 0.30, 0.15)),
    "pixelate": Corruption(pixelate, (0.90, 0.75, 0.60, 0.45, 0.30)),
}


def _check(name: str, severity: int) -> None:
    """Raises ConfigError for an unknown name or severity."""
    errors = []
    if name not in CORRUPTIONS:
        match = closest_match(name, CORRUPTIONS)
        hint = f" (did you mean {match}?)" if match else ""
        errors.append(f"corruption: {name!r} is not one of {', '.join(CORRUPTIONS)}{hint}")
    if severity not in SEVERITIES:
        errors.append(f"severity: must be 1, 2, 3, 4 or 5, not {severity!r}")
    if errors:
        raise ConfigError(errors)
