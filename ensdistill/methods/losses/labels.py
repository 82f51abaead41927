"""No distillation: ordinary training on the labels. Teachers are trained with it, and it is the plainest baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import DistillationLoss
from ensdistill.methods.losses.losses import label_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


class Labels(DistillationLoss):
    """L = CE(labels, student). The teachers are not asked."""

    kind: Literal["labels"] = "labels"

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        """on_labels: logits (K,B,c); labels: (B,), -1 if none; the others are ignored. Returns a scalar in nats."""
        return label_cross_entropy(on_labels, labels)
