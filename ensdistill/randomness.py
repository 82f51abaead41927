"""Random streams, each a pure function of (seed, purpose, epoch): resuming needs no saved generator state."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Streams:
    """Two generators for one epoch: `host` for numbers that steer Python, `device` for tensors beside the images."""

    host: torch.Generator
    device: torch.Generator

    @classmethod
    def of(cls, seed: int, purpose: str, epoch: int, device: torch.device) -> "Streams":
        """The streams of one purpose in one epoch; any two differing arguments give unrelated streams."""
        host = torch.Generator().manual_seed(stream_seed(seed, f"{purpose}/host", epoch))
        on_device = torch.Generator(device=device).manual_seed(stream_seed(seed, f"{purpose}/device", epoch))
        return cls(host, on_device)


def stream_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed from the hash of (seed, purpose, epoch)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def torch_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators (weight initialisation, dropout) inside the block and restores them after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield
