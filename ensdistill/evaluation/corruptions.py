"""Corrupted copies of images, computed when they are needed: how a network fares on worse images than it was taught on.

Our own small set, after Hendrycks and Dietterich 2019 (Benchmarking neural network robustness to common corruptions and
perturbations). Noise, brightness and contrast have the constants of their CIFAR-10-C; blur and pixelation are in
shares of the image side, so that they mean something on images of any size. It is NOT CIFAR-10-C, and figures on it
are not comparable with figures on that.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ensdistill.data.splits import to_unit
from ensdistill.errors import ConfigError
from ensdistill.settings.validation import closest_match

SEVERITIES = range(1, 6)
CHUNK = 1024  # images in float at a time: a whole data set would take four times its memory


@dataclass(frozen=True)
class Corruption:
    """images (B,C,H,W) in [0,1] x strength x generator -> images, to be clipped to [0,1]; a strength a severity."""

    apply: Callable[[Tensor, float, torch.Generator], Tensor]
    strengths: tuple[float, float, float, float, float]


def corrupt(images: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Images uint8 (N,C,H,W) -> corrupted images uint8 (N,C,H,W) on the same device, in new memory.

    name: one of `CORRUPTIONS`; severity: 1 (mild) to 5; seed: of the noise, the same for every severity.

    Raises ConfigError for a name or a severity that there is not.
    """
    _check(name, severity)
    corruption = CORRUPTIONS[name]
    strength = corruption.strengths[severity - 1]
    generator = torch.Generator(device=images.device).manual_seed(seed)
    chunks = [corruption.apply(to_unit(chunk), strength, generator) for chunk in torch.split(images, CHUNK)]
    return torch.cat([(chunk.clamp(0, 1) * 255).round().to(torch.uint8) for chunk in chunks])


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + sigma n, n ~ N(0, I)."""
    return x + sigma * torch.randn(x.shape, generator=generator, device=x.device)


def gaussian_blur(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Convolution with a Gaussian of sigma = share of the smaller side, cut at 4 sigma; the border is repeated."""
    sigma = share * min(x.shape[2:])
    radius = math.ceil(4 * sigma)
    offset = torch.arange(-radius, radius + 1, device=x.device) / sigma
    kernel = (-offset.square() / 2).softmax(0)
    flat = F.pad(x.flatten(0, 1).unsqueeze(1), (radius,) * 4, mode="replicate")  # (B C,1,H,W): channels on their own
    return F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1)).view_as(x)


def brightness(x: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    """The value V = max over channels of HSV becomes min(V + shift, 1); hue and saturation stay, black becomes gray."""
    value = x.amax(1, keepdim=True)
    brighter = (value + shift).clamp(max=1)
    return torch.where(value > 0, x * brighter / value, brighter)


def contrast(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """mean + factor (x - mean), with the mean of each image and channel."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + factor * (x - mean)


def pixelate(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Squares of a coarser grid, share of the side squares on each side, take the mean of the image under them.

    Where the border of a square cuts a pixel, the pixel mixes both squares by area.
    """
    rows, columns = (_coarse(side, max(1, round(share * side)), x) for side in x.shape[2:])
    return rows @ x @ columns


def _coarse(side: int, cells: int, like: Tensor) -> Tensor:
    """Onto `cells` means and back again, as a symmetric matrix (side,side) whose rows sum to one."""
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
    faults = []
    if name not in CORRUPTIONS:
        hint = closest_match(name, CORRUPTIONS)
        way_out = f" (did you mean {hint}?)" if hint else ""
        faults.append(f"corruption: {name!r} is none of {', '.join(CORRUPTIONS)}{way_out}")
    if severity not in SEVERITIES:
        faults.append(f"severity: must be 1, 2, 3, 4 or 5, not {severity!r}")
    if faults:
        raise ConfigError(faults)
