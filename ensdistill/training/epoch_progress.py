"""Progress within a long epoch: completed fraction, mean loss so far, images per second."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

INTERVAL_S = 2.0  # seconds between reports and before the first report; shorter epochs are not reported


@dataclass(frozen=True)
class EpochProgress:
    """State of an unfinished epoch.

    Attributes:
        epoch: Epoch number, from 1.
        share: Fraction of completed steps, in (0, 1].
        loss: Mean training loss of the completed steps.
        images_per_second: Mean number of images per second over the completed steps, including unlabeled images.
    """

    epoch: int
    share: float
    loss: float
    images_per_second: float


OnProgress = Callable[[EpochProgress], None]


class EpochWatch:
    """Reports the progress of one epoch every few seconds; each report reads the losses and synchronizes the device."""

    def __init__(self, report: OnProgress | None, epoch: int, steps: int, images: int) -> None:
        """Starts timing an epoch.

        Args:
            report: Called with the progress; None disables reports.
            epoch: Epoch number, from 1.
            steps: Number of steps in the epoch.
            images: Number of images per step.
        """
        self._report, self._epoch, self._steps, self._images = report, epoch, steps, images
        self._sum, self._read = 0.0, 0  # sum and number of the losses read so far
        self._began = time.perf_counter()
        self._due = self._began + INTERVAL_S if report else float("inf")

    def step_done(self, losses: Sequence[Tensor]) -> None:
        """Reports the progress if the interval has passed.

        Args:
            losses: Loss of every step so far, on the device.
        """
        if time.perf_counter() < self._due or self._report is None:
            return
        self._sum += float(torch.stack(list(losses[self._read :])).double().sum())
        self._read = len(losses)
        now = time.perf_counter()
        self._due = now + INTERVAL_S
        share, pace = self._read / self._steps, self._read * self._images / (now - self._began)
        self._report(EpochProgress(self._epoch, share, self._sum / self._read, pace))
