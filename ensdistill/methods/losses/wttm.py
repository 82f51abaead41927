"""Weighted transformed teacher matching: softens only teacher outputs and upweights ambiguous images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import WeightedDistillationLoss
from ensdistill.methods.losses.losses import kl_divergence_from_log
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


class Wttm(WeightedDistillationLoss):
    """Matches the student, without a temperature, to power-transformed teacher probabilities.

    L = (1 - alpha) CE(labels, student) + alpha mean_{m,b} Z_mb KL(q_mb / Z_mb || softmax(s_b))

    with q = softmax(t)^(1/T) and Z = sum_c q. Z is 1 if the teacher is certain, and c^(1 - 1/T) if all classes are
    equally likely. Images on which a teacher is uncertain therefore have larger weights than other images. At T = 1,
    the term is the unweighted KL divergence.

    Zheng and Yang 2024 (WTTM, ICLR) and their official code. The official code has one teacher and uses the exponent
    gamma = 1/T, a weight of 1 for the label term and a weight of beta for the distillation term. Here, alpha
    corresponds to beta = alpha / (1 - alpha), and the term is averaged over teachers.
    """

    kind: Literal["wttm"] = "wttm"
    temperature: float = setting(
        4.0, "Temperature T of the teachers; 1/T is the exponent of the power transform.", ge=0.05, le=100
    )

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        transformed = (teachers.log_softmax(-1) / self.temperature).exp()  # q, (M,B,c)
        totals = transformed.sum(-1, keepdim=True)
        divergence = kl_divergence_from_log((transformed / totals).unsqueeze(0), student.log_softmax(-1).unsqueeze(1))
        return (totals.squeeze(-1) * divergence).mean()
