"""Base classes of the losses: the interface, and the weighting of the label term and the distillation term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.methods.losses.losses import label_cross_entropy, standardized, weighted_sum
from ensdistill.runtime.lazy import nn
from ensdistill.settings.base import setting
from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from torch import Tensor


class DistillationLoss(Piece):
    """Base class of all losses."""

    def head(self) -> nn.Module | None:
        """Returns a module to append to the student's network; None if the loss requires no such module.

        The module maps the network's outputs (B,classes) to logits (B,classes), whose softmax is the student's
        prediction.
        """
        return None

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        """Returns the loss of one batch, a scalar.

        Args:
            student: Logits (K,B,c) of the student on the images of the distillation term.
            teachers: Logits (M,B,c) of the teachers on the same images.
            labels: Class indices (B,), -1 for an unlabeled image.
            on_labels: Logits (K,B,c) of the student on the images of the label term; often the same tensor as
                `student`.
        """
        raise NotImplementedError


class WeightedDistillationLoss(DistillationLoss):
    """L = (1 - alpha) CE(labels, student) + alpha * distillation(student, teachers).

    With `logit_standardization`, the distillation term uses (z - mean(z)) / sd(z) instead of the logits z of each image
    and network. The scale of the student's logits is then arbitrary, so only calibrated metrics are comparable. Sun et
    al. 2024 (CVPR); the official code also multiplies the weight of this term by 9.
    """

    temperature: float = setting(4.0, "Softmax temperature of teachers and student.", ge=0.05, le=100)
    alpha: float = setting(
        0.9, "Weight alpha of the distillation term; the weight of the label term is 1 - alpha.", ge=0, le=1
    )
    logit_standardization: bool = setting(False, "Standardize each image's logits in the distillation term.")

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        return weighted_sum(
            (1 - self.alpha, lambda: label_cross_entropy(on_labels, labels)),
            (self.alpha, lambda: self.distillation(self._scaled(student), self._scaled(teachers))),
        )

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        """Returns the distillation term, a scalar in nats per example, multiplied by T^2.

        Args:
            student: Logits (K,B,c).
            teachers: Logits (M,B,c).
        """
        raise NotImplementedError

    def _scaled(self, logits: Tensor) -> Tensor:
        return standardized(logits) if self.logit_standardization else logits


class TeacherWeightedLoss(DistillationLoss):
    """L = a CE(labels, student) + b * distillation(student, teachers, labels); the second term weights the teachers."""

    temperature: float = setting(4.0, "Softmax temperature of teachers and student.", ge=0.05, le=100)
    label_weight: float = setting(1.0, "Weight a of the label term.", ge=0, le=1000)
    teacher_weight: float = setting(1.0, "Weight b of the distillation term.", ge=0, le=1000)

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        return weighted_sum(
            (self.label_weight, lambda: label_cross_entropy(on_labels, labels)),
            (self.teacher_weight, lambda: self.distillation(student, teachers, labels)),
        )

    def distillation(self, student: Tensor, teachers: Tensor, labels: Tensor) -> Tensor:
        """Returns the distillation term, a scalar in nats per example, multiplied by T^2.

        Args:
            student: Logits (K,B,c).
            teachers: Logits (M,B,c).
            labels: Class indices (B,), -1 for an unlabeled image.
        """
        raise NotImplementedError
