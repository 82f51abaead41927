"""Progress within an epoch that takes long: how far it is, its loss so far, images per second."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

INTERVAL_S = 2.0  # between two reports, and before the first; an epoch that is shorter reports nothing


@dataclass(frozen=True)
class EpochProgress:
    """An epoch that is not over.

    Attributes:
        epoch: Its number; 1 is the first.
        share: Share of its steps that are done, in (0, 1].
        loss: Mean training loss of these steps.
        images_per_second: Images of these steps, unlabeled ones included, per second.
    """

    epoch: int
    share: float
    loss: float
    images_per_second: float


OnProgress = Callable[[EpochProgress], None]


class EpochWatch:
    """Reports the progress of one epoch every few seconds. A report reads the losses, so it waits for the device."""

    def __init__(self, report: OnProgress | None, epoch: int, steps: int, images: int) -> None:
        """images: of one step."""
        self._report, self._epoch, self._steps, self._images = report, epoch, steps, images
        self._sum, self._read = 0.0, 0  # of the losses that were read, and their number
        self._began = time.perf_counter()
        self._due = self._began + INTERVAL_S if report else float("inf")

    def step_done(self, losses: Sequence[Tensor]) -> None:
        """Reports if it is time to.

        Args:
            losses: The loss of every step so far, on the device.
        """
        if time.perf_counter() < self._due or self._report is None:
            return
        self._sum += float(torch.stack(list(losses[self._read :])).double().sum())
        self._read = len(losses)
        now = time.perf_counter()
        self._due = now + INTERVAL_S
        share, pace = self._read / self._steps, self._read * self._images / (now - self._began)
        self._report(EpochProgress(self._epoch, share, self._sum / self._read, pace))
