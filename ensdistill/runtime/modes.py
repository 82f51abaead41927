"""Training and evaluation mode of networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ensdistill.runtime.lazy import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Sets a network to evaluation mode inside the block and restores the previous mode afterwards."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
