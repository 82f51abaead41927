"""How weights move: SGD with momentum and a learning rate that is a function of the step alone."""

import math
from typing import Literal

import torch

from ensdistill.settings import Settings, setting
from ensdistill.students.base import Student


class Training(Settings):
    """Length, batches and optimiser of one training run."""

    epochs: int = setting(20, "Passes over the training images.", ge=1, le=100_000)
    batch_size: int = setting(32, "Images a step; a last incomplete batch is dropped.", ge=1, le=65_536)
    lr: float = setting(0.05, "Largest learning rate of SGD.", gt=0, le=100)
    momentum: float = setting(0.9, "Nesterov momentum of SGD.", ge=0, lt=1)
    nesterov: bool = setting(True, "Nesterov's form of momentum (needs momentum above 0).")
    weight_decay: float = setting(5e-4, "Coupled L2 decay of every parameter.", ge=0, le=1)
    schedule: Literal["cosine", "constant"] = setting("cosine", "Learning rate after the warm-up: to 0, or unchanged.")
    warmup_epochs: int = setting(1, "Epochs of linear warm-up from 0.", ge=0, le=100_000)
    threads: int = setting(
        1, "CPU threads; part of the settings because another count adds up in another order.", ge=1, le=1024
    )

    def optimiser(self, student: Student) -> torch.optim.SGD:
        """SGD over the student's own parameter groups."""
        nesterov = self.nesterov and self.momentum > 0
        groups = student.parameter_groups(self.weight_decay)
        optimiser = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov)
        set_lr(optimiser, self.lr)
        return optimiser

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of one step (0, 1, ...): linear 0 -> lr in the warm-up, then by the schedule to the end.

        METHODS of Nam et al. 2022: warm-up over 5 of 200 epochs, then cosine to 0, updated every step.
        """
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.lr * step / warmup
        if self.schedule == "constant":
            return self.lr
        remaining = max(1, self.epochs * steps_per_epoch - warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / remaining))


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Gives every parameter group its share of the learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]
