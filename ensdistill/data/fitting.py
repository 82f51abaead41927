"""Makes the images of one data set fit a network that was made for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.data.splits import Split
from ensdistill.errors import DataError
from ensdistill.runtime.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, weights of red, green and blue
CHUNK = 1024  # images in float at a time: a whole data set would take four times its memory


def fit_images(split: Split, shape: tuple[int, int, int]) -> Split:
    """Images uint8 (N,C,H,W) as uint8 (N,*shape); labels as they are, and the same object if the images fit already.

    Gray becomes RGB by repetition, RGB becomes gray by the luma of ITU-R BT.601; other sizes are resized by bilinear
    interpolation, antialiased (a triangle as wide as the scale), sides on their own. Rounded once, at the end.

    Raises DataError for other changes of channels.
    """
    channels = split.images.shape[1]
    if channels != shape[0] and {channels, shape[0]} != {1, 3}:
        raise DataError(f"data: images of {channels} channels cannot become {shape[0]}; only 1 and 3 can change places")
    if split.images.shape[1:] == shape:
        return split
    return Split(torch.cat([_fit(chunk, shape) for chunk in torch.split(split.images, CHUNK)]), split.labels)


def _fit(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    x = images.float()
    if x.shape[1] == 3 and shape[0] == 1:
        x = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    if x.shape[2:] != shape[1:]:
        x = F.interpolate(x, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return x.round().to(torch.uint8).repeat(1, shape[0] // x.shape[1], 1, 1)
