"""Loads the images of each batch; a thread prefetches images from a store, so that training does not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import torch
from torch import Tensor

from ensdistill.data.shared_images import SharedImages

AHEAD = 2  # number of batches to read ahead

Images = Tensor | SharedImages


def batch_images(parts: Sequence[Images], orders: Sequence[Sequence[Tensor]]) -> Iterator[Tensor]:
    """Yields the images of each batch as a uint8 tensor (B,C,H,W), on the device of the parts.

    Args:
        parts: Images of each part (labeled, unlabeled), all on the same device.
        orders: For each part, one tensor of image indices (n,) per batch. A batch is the concatenation of the
            images from all parts.
    """
    batches = list(zip(*orders, strict=True))
    if not any(isinstance(part, SharedImages) for part in parts):
        yield from (torch.cat([part[own] for part, own in zip(parts, batch, strict=True)]) for batch in batches)
        return
    # The indices of all batches are copied to the host in advance; a copy during training would wait for the GPU.
    on_host = [[own.cpu() for own in batch] for batch in batches]
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        waiting: deque[Future[list[Tensor]]] = deque()
        try:
            for batch in chain(on_host, [None] * AHEAD):
                if batch is not None:
                    waiting.append(reader.submit(_read, parts, batch))
                if len(waiting) > AHEAD or (batch is None and waiting):
                    device = parts[0].device
                    yield torch.cat([own.to(device, non_blocking=True) for own in waiting.popleft().result()])
        finally:
            for left in waiting:
                left.cancel()


def _read(parts: Sequence[Images], batch: Sequence[Tensor]) -> list[Tensor]:
    """Returns the images of one batch, one tensor per part; images from a store are in host memory."""
    pairs = zip(parts, batch, strict=True)
    return [part.read(own) if isinstance(part, SharedImages) else part[own.to(part.device)] for part, own in pairs]
