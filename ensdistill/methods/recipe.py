"""Training recipe: SGD with momentum, and a learning rate that depends only on the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from ensdistill.data.augmentation import Augmentation, StandardAugmentation
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import Settings, setting

if TYPE_CHECKING:
    from ensdistill.methods.students.base import Student


class Sgd(Settings):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = setting(0.05, "Peak learning rate of SGD.", gt=0, le=100)
    momentum: float = setting(0.9, "Momentum of SGD.", ge=0, lt=1)
    nesterov: bool = setting(True, "Use Nesterov momentum (requires momentum above 0).")
    weight_decay: float = setting(5e-4, "Coupled L2 decay of all parameters, added to the gradient.", ge=0, le=1)

    def __call__(self, student: Student) -> torch.optim.SGD:
        """Returns an optimizer for the parameter groups of the student."""
        nesterov = self.nesterov and self.momentum > 0
        groups = student.parameter_groups(self.weight_decay)
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov)
        set_lr(optimizer, self.lr)
        return optimizer


class Training(Settings):
    """Length, batches and optimizer of one training run."""

    epochs: int = setting(20, "Passes over the training images.", ge=1, le=100_000)
    batch_size: int = setting(32, "Images per step; the last incomplete batch is dropped.", ge=1, le=65_536)
    optimizer: Sgd = setting(Sgd(), "Optimizer of the weights.")
    max_grad_norm: float | None = setting(
        None, "Maximum L2 norm of the gradient over all parameters; a larger gradient is scaled down to it.", gt=0
    )
    lr_schedule: Literal["cosine", "linear", "multistep", "constant"] = setting(
        "cosine",
        "Learning rate after the warm-up: half a cosine; constant until half of the training, then linear decay until "
        "90 % of it; divided by 10 at 5/8, 6/8 and 7/8 of the training; or constant.",
    )
    warmup_epochs: int = setting(1, "Epochs of linear warm-up.", ge=0, le=100_000)
    min_lr_ratio: float = setting(
        0.0, "Fraction of lr at which the warm-up starts and at which `cosine` and `linear` end.", ge=0, le=1
    )
    lr_update: Literal["step", "epoch"] = setting("step", "How often the learning rate is updated.")
    unlabeled_batch_size: int = setting(
        0, "Number of unlabeled images added to every batch; requires unlabeled images in the data.", ge=0, le=65_536
    )
    augmentation: Augmentation = setting(StandardAugmentation(), "Random augmentation of each batch of images.")
    precision: Literal["float32", "bfloat16", "auto"] = setting(
        "float32",
        "Compute precision of the training step; `auto`: bfloat16 where the device is fast at it. "
        "Weights, losses and all evaluation stay in float32.",
        exclude_if=lambda precision: precision == "float32",  # the default is excluded from content hashes
    )
    threads: int = setting(
        1, "Number of CPU threads; it affects results, because it changes the order of summation.", ge=1, le=1024
    )

    def autocast(self, device: torch.device) -> torch.autocast:
        """Returns a context in which matrix products and convolutions are computed in the selected precision.

        The weight cache of autocast is disabled: otherwise a cache filled without gradients is reused in the pass with
        gradients.
        """
        on = self.precision == "bfloat16" or (self.precision == "auto" and fast_in_bfloat16(device))
        return torch.autocast(device.type, torch.bfloat16, enabled=on, cache_enabled=False)

    def clip_gradient(self, student: Student) -> None:
        """Scales the gradient of all parameters in place to an L2 norm of at most `max_grad_norm`.

        References:
            Pascanu et al. 2013.
        """
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(student.parameters(), self.max_grad_norm)

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Returns the learning rate of one step: a linear warm-up, then `lr_schedule` until the end.

        Args:
            step: Index of the step in the whole training: 0, 1, ...
            steps_per_epoch: Number of steps of one epoch.

        References:
            Nam et al. 2022, official code: warm-up of 5 of 200 epochs from 0, then `cosine` to 0, updated every step.
            Nam et al. 2021, official code: warm-up of 5 of 300 epochs from 1 %, then `linear` to 1 %, updated every
            epoch, with the peak in the fifth.
        """
        if self.lr_update == "step":
            now, warmup, total = step, self.warmup_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        else:
            now, warmup, total = step // steps_per_epoch, max(0, self.warmup_epochs - 1), self.epochs
        if now < warmup:
            return self.optimizer.lr * (self.min_lr_ratio + (1 - self.min_lr_ratio) * now / warmup)
        return self.optimizer.lr * self._share(now, warmup, total)

    def _share(self, now: int, warmup: int, total: int) -> float:
        """Returns the fraction of lr after the warm-up; arguments are all in steps or all in epochs, `now` from 0."""
        if self.lr_schedule == "cosine":
            height = 0.5 * (1 + math.cos(math.pi * (now - warmup) / max(1, total - warmup)))
        elif self.lr_schedule == "linear":
            done = (now + (self.lr_update == "epoch")) / total
            height = 1 - min(1.0, max(0.0, (done - 0.5) / 0.4))
        elif self.lr_schedule == "multistep":
            return float(0.1 ** sum(8 * now >= eighths * total for eighths in (5, 6, 7)))
        else:
            return 1.0
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * height


def fast_in_bfloat16(device: torch.device) -> bool:
    """Returns whether the device has hardware instructions for bfloat16 products."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every parameter group to `lr` times the `lr_scale` of the group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
