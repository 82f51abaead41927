"""Training and evaluation mode of networks."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Sets evaluation mode inside the block and restores the former mode after it."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
