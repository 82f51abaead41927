"""Teacher weights based on how confidently each teacher predicts the label of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import TeacherWeightedLoss
from ensdistill.methods.losses.losses import kl_per_example, others_losses_weights, teacher_losses

if TYPE_CHECKING:
    from torch import Tensor


class CaMkd(TeacherWeightedLoss):
    """For each image, teachers that predict the label better get larger weights than the others.

    L = a CE(y, s) + b mean_b sum_m w_mb T^2 KL(teacher_m || s),   w_mb = (1 - softmax_m(CE(y_b, t_mb))) / (M - 1)

    The cross-entropy of a teacher is computed at temperature 1. The weights for an image sum to 1, and no weight
    exceeds 1/(M - 1). For an unlabeled image, all weights are equal. A single teacher has weight 1.

    Zhang, Chen and Wang 2022 (CA-MKD, ICASSP, arXiv 2201.00007). The official code also divides the distillation term
    by M. The feature term (hint term) is not implemented.
    """

    kind: Literal["camkd"] = "camkd"

    def distillation(self, student: Tensor, teachers: Tensor, labels: Tensor) -> Tensor:
        tempered = (teachers / self.temperature).softmax(-1)
        divergences = kl_per_example(tempered.unsqueeze(0), student.unsqueeze(1), self.temperature)  # (K,M,B)
        return (self.teacher_weights(teachers, labels) * divergences).sum(1).mean()

    @staticmethod
    def teacher_weights(teachers: Tensor, labels: Tensor) -> Tensor:
        """Returns the weights w of the teachers.

        Args:
            teachers: Logits (M,B,c).
            labels: Class indices (B,), -1 for an unlabeled image.

        Returns:
            Weights (M,B); each column sums to 1.
        """
        return others_losses_weights(teacher_losses(teachers, labels))
