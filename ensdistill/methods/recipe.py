"""Training recipe of teachers and students: optimizer, learning rate, label term, precision and selected epoch."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from ensdistill.data.augmentation import Augmentation, StandardAugmentation
from ensdistill.errors import ConfigError, ConfigIssue, SettingError
from ensdistill.methods.class_weights import ClassWeights
from ensdistill.methods.optimizers import OptimizerSetting, Sgd, can_fail
from ensdistill.methods.parameter_groups import parameter_groups, scale_gradients
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import Settings, setting

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ensdistill.methods.students.base import Student


class Training(Settings):
    """Training recipe of one teacher or student: length, batches, optimizer and precision."""

    epochs: int = setting(20, "Number of passes over the training images.", ge=1, le=100_000)
    batch_size: int = setting(32, "Number of images per step; an incomplete last batch is dropped.", ge=1, le=65_536)
    # A setting with `exclude_if` is excluded from content hashes while it has its default value.
    gradient_accumulation: int = setting(
        1,
        "Number of equal parts into which a batch is divided to save memory; the gradients of the parts are added "
        "before the step. BatchNorm statistics are computed separately for each part.",
        ge=1,
        le=65_536,
        exclude_if=lambda parts: parts == 1,
    )
    optimizer: OptimizerSetting = setting(Sgd(), "Optimizer that updates the weights.")
    max_grad_norm: float | None = setting(
        None, "Maximum L2 norm of the gradient over all parameters; a larger gradient is scaled to this norm.", gt=0
    )
    lr_schedule: Literal["cosine", "linear", "multistep", "constant"] = setting(
        "cosine",
        "Learning rate after the warm-up. `cosine` decreases it along half a cosine period. `linear` keeps it constant "
        "for the first half of training, then decreases it linearly until 90 % of training is done. `multistep` "
        "divides it by 10 at 5/8, 6/8 and 7/8 of training. `constant` does not change it.",
    )
    warmup_epochs: int = setting(1, "Number of epochs of linear warm-up.", ge=0, le=100_000)
    warmup_steps: int | None = setting(
        None,
        "Number of steps of linear warm-up; replaces `warmup_epochs` and requires `lr_update: step`.",
        ge=0,
        le=100_000_000,
        exclude_if=lambda steps: steps is None,
    )
    min_lr_ratio: float = setting(
        0.0, "Fraction of lr at which the warm-up starts and at which `cosine` and `linear` end.", ge=0, le=1
    )
    lr_update: Literal["step", "epoch"] = setting("step", "How often the learning rate is updated.")
    label_smoothing: float = setting(
        0.0,
        "Probability that is distributed equally over all classes in the targets of the label term; the distillation "
        "term is not affected.",
        ge=0,
        lt=1,
        exclude_if=operator.not_,
    )
    class_weights: ClassWeights = setting(
        "none",
        "Weights of the classes in the label term: none; `balanced`, inversely proportional to the number of training "
        "images in each class; or a list with one number for each class, in the order of the classes.",
        exclude_if=lambda weights: weights == "none",
    )
    unlabeled_batch_size: int = setting(
        0, "Number of unlabeled images added to every batch; requires unlabeled images in the data.", ge=0, le=65_536
    )
    augmentation: Augmentation = setting(StandardAugmentation(), "Random augmentation of each batch of images.")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = setting(
        "float32",
        "Compute precision of the training step. `float16` uses a gradient scaler and has an effect only on GPUs; "
        "`auto` is bfloat16 on devices with hardware support for it, and float32 on all others. Weights, losses and "
        "all evaluation stay in float32.",
        exclude_if=lambda precision: precision == "float32",
    )
    select_epoch: Literal["last", "best_nll", "best_accuracy"] = setting(
        "last",
        "Epoch whose weights are evaluated and exported: the last epoch, or the best epoch so far on the validation "
        "images.",
        exclude_if=lambda epoch: epoch == "last",
    )
    patience: int | None = setting(
        None,
        "Number of epochs without an improvement on the validation images after which training ends; applies only to "
        "teachers. The metric is NLL, or accuracy with `select_epoch: best_accuracy`.",
        ge=1,
        exclude_if=lambda patience: patience is None,
    )
    threads: int = setting(
        1, "Number of CPU threads; it affects results, because it changes the order of summation.", ge=1, le=1024
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        if self.warmup_steps is not None and self.lr_update == "epoch":
            hint = "set lr_update to step, or use warmup_epochs"
            raise SettingError(ConfigIssue(("warmup_steps",), "requires lr_update: step", self.warmup_steps, hint))
        for name in ("batch_size", "unlabeled_batch_size"):
            if getattr(self, name) % self.gradient_accumulation:
                rule = f"must be a divisor of {name} ({getattr(self, name)})"
                raise SettingError(ConfigIssue(("gradient_accumulation",), rule, self.gradient_accumulation))
        return self

    def new_optimizer(self, student: Student) -> Optimizer:
        """Returns a new optimizer for all of the student's parameters that are not frozen.

        Raises:
            ConfigError: The optimizer cannot be used.
        """
        optimizer = self.optimizer(parameter_groups(student, self.optimizer))
        optimizer.register_step_pre_hook(scale_gradients)
        set_lr(optimizer, self.optimizer.lr)
        return optimizer

    def check_optimizer(self, student: Student) -> None:
        """Checks that the optimizer can be used with a student.

        Raises:
            ConfigError: The optimizer cannot be used, or the student has no parameters that can be trained.
        """
        if not parameter_groups(student, self.optimizer):
            raise ConfigError(ConfigIssue(("model",), "has no parameters that can be trained", hint="unfreeze some"))
        if can_fail(self.optimizer):
            self.new_optimizer(student)

    def autocast(self, device: torch.device, scaled: bool = True) -> torch.autocast:
        """Returns a context in which matrix products and convolutions are computed in the selected precision.

        The weight cache of autocast is disabled, because a pass with gradients would otherwise reuse weights that were
        cached without gradients.

        Args:
            device: Device on which the step runs.
            scaled: Whether the gradients computed in the context are scaled; float16 is used only with scaled
                gradients, because unscaled gradients can underflow.
        """
        if self.scales_gradients(device):
            return torch.autocast(device.type, torch.float16, enabled=scaled, cache_enabled=False)
        on = self.precision == "bfloat16" or (self.precision == "auto" and fast_in_bfloat16(device))
        return torch.autocast(device.type, torch.bfloat16, enabled=on, cache_enabled=False)

    def scales_gradients(self, device: torch.device) -> bool:
        """Returns whether steps are computed in float16, in which small gradients underflow unless they are scaled."""
        return self.precision == "float16" and device.type != "cpu"

    def new_scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Returns a new gradient scaler, which has an effect only in float16."""
        return torch.amp.GradScaler(device.type, enabled=self.scales_gradients(device))

    def clip_gradient(self, student: Student) -> None:
        """Scales the gradient of all parameters, in place, so that its L2 norm is at most `max_grad_norm`.

        References:
            Pascanu et al. 2013.
        """
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(student.parameters(), self.max_grad_norm)

    def selected_epoch(self, number: int | None = None) -> str:
        """Returns a phrase that names the epoch from which a student's weights are taken.

        Args:
            number: Epoch number, if known.
        """
        metric = {"best_nll": "NLL", "best_accuracy": "accuracy"}.get(self.select_epoch)
        if number is None:
            return f"the epoch with the best {metric} on the validation images" if metric else "the last epoch"
        return f"epoch {number}, " + (
            f"the best epoch by {metric} on the validation images" if metric else "the last epoch"
        )

    @property
    def depends_on_length(self) -> bool:
        """Whether the learning rate of an epoch depends on the total number of epochs."""
        return self.lr_schedule != "constant"

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Returns the learning rate of one step: a linear warm-up, then `lr_schedule` until the end.

        Args:
            step: Step index, counted from the start of training: 0, 1, ...
            steps_per_epoch: Number of steps in one epoch.

        References:
            Nam et al. 2022, official code: 200 epochs; 5 epochs of warm-up from 0, then `cosine` to 0, updated every
            step.
            Nam et al. 2021, official code: 300 epochs; 5 epochs of warm-up from 1 %, then `linear` to 1 %, updated
            every epoch. The peak is in the fifth epoch.
        """
        if self.lr_update == "step":
            steps = self.warmup_epochs * steps_per_epoch if self.warmup_steps is None else self.warmup_steps
            now, warmup, total = step, steps, self.epochs * steps_per_epoch
        else:
            now, warmup, total = step // steps_per_epoch, max(0, self.warmup_epochs - 1), self.epochs
        if now < warmup:
            return self.optimizer.lr * (self.min_lr_ratio + (1 - self.min_lr_ratio) * now / warmup)
        return self.optimizer.lr * self._share(now, warmup, total)

    def _share(self, now: int, warmup: int, total: int) -> float:
        """Returns the learning rate after the warm-up as a fraction of lr.

        The arguments are either all in steps or all in epochs.
        """
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
    """Sets the learning rate of every parameter group to `lr` times the group's `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
