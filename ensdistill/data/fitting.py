"""Conversion of images to the input shape of a network that was trained on images of another shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ensdistill.data.splits import Split
from ensdistill.errors import DataError
from ensdistill.runtime.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


Resize = Literal["squash", "center_crop", "pad"]  # how an image of another aspect ratio becomes one of the network's
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue, ITU-R BT.601
CHUNK = 1024  # images converted at a time, because floats take four times the memory of the images


def fit_images(split: Split, shape: tuple[int, int, int]) -> Split:
    """Returns a split with images of a given shape; labels are unchanged.

    Gray becomes RGB by repetition, RGB becomes gray by the luma of ITU-R BT.601. Images of another size are resized by
    antialiased bilinear interpolation (the filter is a triangle as wide as the scale), each side separately. Values are
    rounded once, at the end.

    Args:
        split: Images uint8 (N,C,H,W) and labels (N,).
        shape: (C,H,W) of the new images.

    Returns:
        Images uint8 (N,*shape) and labels (N,); the same object if the images already have the shape.

    Raises:
        DataError: The numbers of channels differ and are not 1 and 3.
    """
    channels = split.images.shape[1]
    if channels != shape[0] and {channels, shape[0]} != {1, 3}:
        raise DataError(f"data: images of {channels} channels cannot become {shape[0]}; only 1 and 3 can be converted")
    if split.images.shape[1:] == shape:
        return split
    return Split(torch.cat([_fit(chunk, shape) for chunk in torch.split(split.images, CHUNK)]), split.labels)


def _fit(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    x = images.float()
    if x.shape[1] == 3 and shape[0] == 1:
        x = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    if x.shape[2:] != shape[1:]:
        x = resize(x, shape[1:])
    return x.round().to(torch.uint8).repeat(1, shape[0] // x.shape[1], 1, 1)


def resize(images: Tensor, size: tuple[int, int], kind: Resize = "squash") -> Tensor:
    """Returns images of another size, by antialiased bilinear interpolation (the filter is as wide as the scale).

    `squash` resizes each side separately. `center_crop` first cuts off what exceeds the aspect ratio of the new size,
    equally on both sides. `pad` first adds black borders up to that ratio. torch.export traces all three for images of
    any size: they have no branch that depends on a height or width.

    Args:
        images: Images (N,C,H,W).
        size: New height and width.
        kind: What happens to images of another aspect ratio.

    Returns:
        Images float32 (N,C,*size), not rounded.
    """
    frame = {"squash": lambda images, size: images, "center_crop": _cropped, "pad": _padded}[kind]
    framed = frame(images, size).float()
    return F.interpolate(framed, size, mode="bilinear", antialias=True, align_corners=False)


def _cropped(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the largest centered part with the aspect ratio of `size`."""
    (height, width), (rows, columns) = images.shape[2:], size
    high: Any = torch.sym_max(1, torch.sym_min(height, width * rows // columns))
    wide: Any = torch.sym_max(1, torch.sym_min(width, height * columns // rows))
    down, right = (torch.arange(n, device=images.device) for n in (high, wide))  # a slice would fix sizes in the trace
    return images.index_select(2, (height - high) // 2 + down).index_select(3, (width - wide) // 2 + right)


def _padded(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the images, centered on the smallest black image with the aspect ratio of `size`."""
    (height, width), (rows, columns) = images.shape[2:], size
    high: Any = torch.sym_max(height, width * rows // columns)
    wide: Any = torch.sym_max(width, height * columns // rows)
    top, left = (high - height) // 2, (wide - width) // 2
    return F.pad(images, (left, wide - width - left, top, high - height - top))
