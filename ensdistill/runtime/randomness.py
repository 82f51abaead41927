"""Reproducibility: random streams that are pure functions of (seed, purpose, epoch), and deterministic sums.

Resuming a training run therefore requires no saved generator state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ensdistill.runtime.lazy import np, torch


@dataclass(frozen=True)
class RandomStreams:
    """Two random generators for one epoch.

    Attributes:
        host: Generator on the CPU, for numbers that Python code uses.
        device: Generator on the device of the images, for tensors.
    """

    host: torch.Generator
    device: torch.Generator

    @classmethod
    def of(cls, seed: int, purpose: str, epoch: int, device: torch.device) -> RandomStreams:
        """Returns the streams for one purpose in one epoch.

        Streams with different seeds, purposes or epochs are independent.

        Args:
            seed: Seed of the run.
            purpose: What the random numbers are used for, for example `perturbation`.
            epoch: Epoch number.
            device: Device of the images.
        """
        host = torch.Generator().manual_seed(derive_seed(seed, f"{purpose}/host", epoch))
        on_device = torch.Generator(device=device).manual_seed(derive_seed(seed, f"{purpose}/device", epoch))
        return cls(host, on_device)


def derive_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """Returns a 63-bit seed derived from the SHA-256 hash of (seed, purpose, epoch).

    Args:
        seed: Seed of the run.
        purpose: What the random numbers are used for.
        epoch: Epoch number.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def temporary_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators (weight initialization, dropout) inside the block and restores them afterwards.

    Args:
        seed: The seed.
        device: Device whose generator is seeded in addition to the CPU generator.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def temporary_numpy_seed(seed: int | Sequence[int]) -> Iterator[None]:
    """Seeds NumPy's global generator inside the block, for libraries that use it, and restores its state afterwards."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Makes computations reproducible inside the block.

    Fixes the number of CPU threads, because the order of summation affects the last digits, and allows only
    deterministic convolutions on a GPU.

    Args:
        threads: Number of CPU threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(before)
