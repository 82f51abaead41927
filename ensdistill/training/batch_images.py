"""Images of batches; those of a store are read ahead by a thread, so that training does not wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import torch
from torch import Tensor

from ensdistill.data.shared_images import SharedImages

AHEAD = 2  # batches that are read before they are used

Images = Tensor | SharedImages


def batch_images(parts: Sequence[Images], orders: Sequence[Sequence[Tensor]]) -> Iterator[Tensor]:
    """Yields the images of each batch as uint8 (B,C,H,W) on the device of the parts.

    Args:
        parts: Images of the parts, all on one device.
        orders: For each part, the indices (n,) of its images in every batch; the images of a batch are joined.
    """
    batches = list(zip(*orders, strict=True))
    if not any(isinstance(part, SharedImages) for part in parts):
        yield from (torch.cat([part[own] for part, own in zip(parts, batch, strict=True)]) for batch in batches)
        return
    on_host = [[own.cpu() for own in batch] for batch in batches]  # now: later it would wait for the GPU
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
    """The images of each part; those of a store on the host."""
    pairs = zip(parts, batch, strict=True)
    return [part.read(own) if isinstance(part, SharedImages) else part[own.to(part.device)] for part, own in pairs]
