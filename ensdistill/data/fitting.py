"""Converts images to the input shape of a network that was trained on another data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.data.splits import Split
from ensdistill.errors import DataError
from ensdistill.runtime.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue, ITU-R BT.601
CHUNK = 1024  # number of images converted at a time, to save memory: floats are four times as large as bytes


def fit_images(split: Split, shape: tuple[int, int, int]) -> Split:
    """Returns a split with images of a given shape; labels are unchanged.

    Gray images are copied to all three channels of RGB, and RGB images are converted to gray by the ITU-R BT.601 luma.
    Images of a different size are resized by antialiased bilinear interpolation, separately along each axis; the width
    of the triangular filter is proportional to the downscaling factor. Values are rounded once, at the end.

    Args:
        split: uint8 images (N,C,H,W) and labels (N,).
        shape: (C,H,W) of the new images.

    Returns:
        uint8 images (N,*shape) and labels (N,); `split` itself if its images already have this shape.

    Raises:
        DataError: The numbers of channels differ, and at least one of them is neither 1 nor 3.
    """
    channels = split.images.shape[1]
    if channels != shape[0] and {channels, shape[0]} != {1, 3}:
        raise DataError(
            f"data: images with {channels} channels cannot be converted to {shape[0]} channels; only conversions "
            "between 1 and 3 channels are possible"
        )
    if split.images.shape[1:] == shape:
        return split
    chunks = (split.images[slice(start, start + CHUNK)] for start in range(0, len(split), CHUNK))
    return Split(torch.cat([_fit(chunk, shape) for chunk in chunks]), split.labels)


def _fit(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    x = images.float()
    if x.shape[1] == 3 and shape[0] == 1:
        x = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    if x.shape[2:] != shape[1:]:
        x = F.interpolate(x, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return x.round().to(torch.uint8).repeat(1, shape[0] // x.shape[1], 1, 1)
