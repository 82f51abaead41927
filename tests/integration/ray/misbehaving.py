"""Networks that misbehave in the process that trains them; settings select them as `custom` models."""

import os
import signal
import sys
import time
import uuid
from pathlib import Path

import torch
from torch import Tensor, nn

PIXELS = 64  # pixels of a digit


class Linear(nn.Module):
    """A linear network from images (B,1,8,8) to logits (B,classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(PIXELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def one_of_two(num_classes: int, meeting: str) -> nn.Module:
    """Returns a network only once a second one is being created."""
    (Path(meeting) / uuid.uuid4().hex).touch()
    end = time.monotonic() + 60
    while len(list(Path(meeting).iterdir())) < 2:
        if time.monotonic() > end:
            raise ValueError("nobody came")
        time.sleep(0.05)
    return Linear(num_classes)


def one_of_two_workers(num_classes: int, meeting: str) -> nn.Module:
    """Behaves like `one_of_two` only in a Ray worker, because the driver of a study also creates a network."""
    in_worker = "default_worker" in sys.argv[0]
    return one_of_two(num_classes, meeting) if in_worker else Linear(num_classes)


def deadly(num_classes: int, flag: str, times: int) -> nn.Module:
    """Kills its process the given number of times before it returns a network."""
    with Path(flag).open("a") as file:
        file.write("x")
    if len(Path(flag).read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return Linear(num_classes)


class NotFinite(Linear):
    """A network with NaN logits."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("nan")


class Greedy(Linear):
    """A network that, for a batch of the given size, allocates more memory than any machine has."""

    def __init__(self, num_classes: int, images: int) -> None:
        super().__init__(num_classes)
        self.images = images

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == self.images:
            torch.empty(2**50, dtype=torch.uint8)
        return super().forward(x)
