"""Resizes image batches as Pillow resizes image files, in a form that torch.export and ONNX support for any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.data.image_files import Resize
from ensdistill.runtime.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def resize(images: Tensor, size: tuple[int, int], kind: Resize) -> Tensor:
    """Resizes images by antialiased bilinear interpolation; the filter width is proportional to the downscaling factor.

    An image is multiplied by a weight matrix on each side, x' = R x C^T, and each product is rounded, as in Pillow.
    Some versions of Pillow process the longer side of a tall image first, so results can differ by one gray level.
    Sizes are tensors, because torch.export would treat Python numbers as constants.

    Args:
        images: Images (N,C,H,W).
        size: New height and width.
        kind: `squash` resizes each side separately; `center_crop` crops the longer side equally at both ends, like
            `PIL.ImageOps.fit`; `pad` adds black at both ends of the shorter side, like `PIL.ImageOps.pad`.

    Returns:
        float32 images (N,C,*size); all values are whole numbers.
    """
    rows, columns = (torch.arange(n, dtype=torch.float64, device=images.device) for n in images.shape[2:])
    old, new = (rows[-1] + 1, columns[-1] + 1), [torch.full_like(rows[-1], side) for side in size]
    used, shown = list(old), list(new)  # side lengths of the used part, before and after resizing
    for side, other in ((0, 1), (1, 0)):
        if kind == "center_crop":
            used[side] = torch.minimum(old[side], new[side] / new[other] * old[other])
        if kind == "pad":
            shown[side] = torch.minimum((old[side] / old[other] * new[other]).round(), new[side])
    down, across = (_weights(p, n, u, s) for p, n, u, s in zip((rows, columns), size, used, shown, strict=True))
    narrow = (images.float() @ across.T + 0.5).floor()
    return (down @ narrow + 0.5).floor()


def _weights(positions: Tensor, count: int, used: Tensor, shown: Tensor) -> Tensor:
    """Returns the weight of each old position for each new position, float32 (count, positions); rows sum to 1 or 0.

    Args:
        positions: The positions 0, 1, ... in the old image.
        count: Number of new positions.
        used: Length of the central part of the old image that is used.
        shown: Number of central new positions that show this part; the other positions are black.
    """
    index = torch.arange(count, dtype=torch.float64, device=positions.device) - ((count - shown) / 2).round()
    scale, start = used / shown.clamp(min=1), (positions[-1] + 1 - used) / 2
    centers = start + (index + 0.5) * scale
    distances = (positions + 0.5 - centers[:, None]).abs() / scale.clamp(min=1)
    weights = (1 - distances).clamp(min=0) * ((index >= 0) & (index < shown))[:, None]
    return (weights / weights.sum(1, keepdim=True).clamp(min=1e-9)).float()
