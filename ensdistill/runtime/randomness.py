"""The same numbers again: random streams that are pure functions of (seed, purpose, epoch), and steady sums.

Resuming needs no saved generator state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ensdistill.runtime.lazy import np, torch


@dataclass(frozen=True)
class RandomStreams:
    """Two generators for one epoch: `host` for numbers that steer Python, `device` for tensors beside the images."""

    host: torch.Generator
    device: torch.Generator

    @classmethod
    def of(cls, seed: int, purpose: str, epoch: int, device: torch.device) -> RandomStreams:
        """The streams of one purpose in one epoch; any two differing arguments give unrelated streams."""
        host = torch.Generator().manual_seed(derive_seed(seed, f"{purpose}/host", epoch))
        on_device = torch.Generator(device=device).manual_seed(derive_seed(seed, f"{purpose}/device", epoch))
        return cls(host, on_device)


def derive_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed from the hash of (seed, purpose, epoch)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def temporary_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators (weight initialization, dropout) inside the block and restores them after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def temporary_numpy_seed(seed: int | Sequence[int]) -> Iterator[None]:
    """Seeds NumPy's global generator inside the block and restores it after it: for libraries that draw from it."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Inside the block the same work gives the same numbers: so many CPU threads (sums in another order differ in their
    last digits), and only deterministic convolutions on a GPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(before)
