"""Loss for ordinary training on the labels, without distillation; used for the teachers and the simplest baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import DistillationLoss
from ensdistill.methods.losses.losses import label_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


class Labels(DistillationLoss):
    """L = CE(labels, student). The teachers are not evaluated."""

    kind: Literal["labels"] = "labels"

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        """Returns the mean cross-entropy, a scalar in nats; `student` and `teachers` are ignored.

        Args:
            student: Ignored.
            teachers: Ignored.
            labels: Class indices (B,), -1 for an unlabeled image.
            on_labels: Logits (K,B,c).
        """
        return label_cross_entropy(on_labels, labels)
