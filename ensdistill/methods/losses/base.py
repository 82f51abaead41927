"""What losses share: how their logits come about, and the balance between labels and teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.methods.losses.losses import label_cross_entropy, weighted_sum
from ensdistill.runtime.lazy import nn
from ensdistill.settings.base import setting
from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from torch import Tensor


class DistillationLoss(Piece):
    """Base of all losses."""

    def head(self) -> nn.Module | None:
        """What is put behind the student's network so that the softmax of its logits is what it predicts, if any."""
        return None

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        """The loss of one batch, a scalar.

        student: logits (K,B,c) on the images the teachers saw; teachers: logits (M,B,c); labels: (B,), -1 if none;
        on_labels: the student's logits (K,B,c) on the images of the label term, often the same tensor as `student`.
        """
        raise NotImplementedError


class WeightedDistillationLoss(DistillationLoss):
    """L = (1 - alpha) CE(labels, student) + alpha * distillation(student, teachers)."""

    temperature: float = setting(4.0, "Softmax temperature of teachers and student.", ge=0.05, le=100)
    alpha: float = setting(0.9, "Weight of the distillation term; the label term gets the rest.", ge=0, le=1)

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        return weighted_sum(
            (1 - self.alpha, lambda: label_cross_entropy(on_labels, labels)),
            (self.alpha, lambda: self.distillation(student, teachers)),
        )

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        """The second term alone: nats per example, times temperature squared."""
        raise NotImplementedError
