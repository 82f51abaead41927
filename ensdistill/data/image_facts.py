"""Values computed once from the pixels of each image: a hash, sums, and the largest value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xxhash import xxh3_128_digest

from ensdistill.data.shared_images import SharedImages
from ensdistill.runtime.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor

HASH_BYTES = 16  # of XXH3 with 128 bits
CHUNK = 1 << 24  # number of values converted at a time; int64 requires eight times as much memory as uint8


def facts_of(pixels: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Returns the hash and the levels of an image.

    Args:
        pixels: uint8 (C,H,W).

    Returns:
        The hash and the levels. The hash is the 128-bit XXH3 hash of the pixels, which takes a fortieth of the time of
        SHA-256. The levels, int64 (2C+1,), are the sums of the values and of the squared values per channel, followed
        by the largest value.
    """
    pixels = np.ascontiguousarray(pixels)
    sums = pixels.reshape(len(pixels), -1).sum(1, dtype=np.uint32)
    wide = pixels.astype(np.uint32)  # large enough for the sum of squares of one row, and twice as fast as int64
    squares = np.einsum("chw,chw->ch", wide, wide).sum(1, dtype=np.int64)
    levels = np.concatenate([sums.astype(np.int64), squares, [pixels.max()]])
    return xxh3_128_digest(pixels.data), levels


def image_hashes(images: Tensor | SharedImages) -> list[bytes]:
    """Returns a hash of the pixels of each image; images are uint8 (N,C,H,W)."""
    if isinstance(images, SharedImages):
        return images.hashes()
    return [xxh3_128_digest(image.data) for image in images.contiguous().cpu().numpy()]


def largest_values(images: Tensor | SharedImages) -> Tensor:
    """Returns the largest value of each image, (N,)."""
    if isinstance(images, SharedImages):
        return torch.from_numpy(images.levels()[:, -1].copy())
    return images.flatten(1).amax(1)


def channel_sums(images: Tensor | SharedImages) -> tuple[Tensor, Tensor]:
    """Returns exact per-channel sums of the values and of their squares, int64 (C,), for tensors and stores alike."""
    if isinstance(images, SharedImages):
        sums = torch.from_numpy(images.levels()[:, :-1].sum(0))
        first, second = sums.to(images.device).chunk(2)
        return first, second
    level = torch.arange(256, device=images.device)
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64, device=images.device)
    size = max(1, CHUNK // math.prod(images.shape[1:]))
    for part in (images[start : start + size] for start in range(0, len(images), size)):
        counts += torch.stack([torch.bincount(c.flatten().long(), minlength=256) for c in part.unbind(1)])
    return (counts * level).sum(1), (counts * level.square()).sum(1)
