"""EKD: each branch learns from a separate teacher, and the combination of all branches learns from the ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.assignment import subnetwork_targets
from ensdistill.methods.losses.base import DistillationLoss
from ensdistill.methods.losses.losses import kl_divergence_from_log, label_cross_entropy, weighted_sum
from ensdistill.runtime.lazy import F
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


class Ekd(DistillationLoss):
    """Reconstruction of EKD from the abstract: the formula is a guess, because the paper's formulas were not available.

    L = a [CE(y, z) + sum_i CE(y, z_i)] + b T^2 [KL(t || z) + sum_i KL(t_i || z_i)]
        + d [MSE(z, t) + sum_i MSE(z_i, t_i)]

    z_i is the output of branch i, and t_i the mean output of the teachers assigned to it
    (`ensdistill.methods.assignment`). z combines all branches, and t combines all teachers. With one branch, the loss
    is plain distillation with every term counted twice. After Asif et al., arXiv 1909.08097.
    """

    kind: Literal["ekd"] = "ekd"
    temperature: float = setting(4.0, "Softmax temperature of teachers and student.", ge=0.05, le=100)
    label_weight: float = setting(1.0, "Weight a of the label terms.", ge=0, le=1000)
    teacher_weight: float = setting(1.0, "Weight b of the distillation terms.", ge=0, le=1000)
    logit_weight: float = setting(0.0, "Weight d of the squared distances between logits.", ge=0, le=1000)
    student_aggregation: Literal["mean_of_logits", "sum_of_logits", "mean_of_probabilities"] = setting(
        "mean_of_logits", "How branch outputs are combined in the loss."
    )
    teacher_aggregation: Literal["mean_of_logits", "mean_of_probabilities"] = setting(
        "mean_of_logits", "How teacher outputs are combined in the loss."
    )

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        return weighted_sum(
            (self.label_weight, lambda: self._label_terms(on_labels, labels)),
            (self.teacher_weight, lambda: self._teacher_terms(student, teachers)),
            (self.logit_weight, lambda: self._logit_terms(student, teachers)),
        )

    def _label_terms(self, branches: Tensor, labels: Tensor) -> Tensor:
        """Returns CE(y, z) + sum_i CE(y, z_i)."""
        combined = _combined(branches, self.student_aggregation).unsqueeze(0)
        return label_cross_entropy(combined, labels) + len(branches) * label_cross_entropy(branches, labels)

    def _teacher_terms(self, branches: Tensor, teachers: Tensor) -> Tensor:
        """Returns T^2 [KL(t || z) + sum_i KL(t_i || z_i)]."""
        t = self.temperature
        own = subnetwork_targets((teachers / t).softmax(-1), len(branches))
        per_branch = kl_divergence_from_log(own, (branches / t).log_softmax(-1)).mean(-1).sum()
        ensemble = _combined(teachers, self.teacher_aggregation, t).softmax(-1)
        student = _combined(branches, self.student_aggregation, t).log_softmax(-1)
        return t**2 * (per_branch + kl_divergence_from_log(ensemble, student).mean())

    def _logit_terms(self, branches: Tensor, teachers: Tensor) -> Tensor:
        """Returns MSE(z, t) + sum_i MSE(z_i, t_i)."""
        per_branch = F.mse_loss(branches, subnetwork_targets(teachers, len(branches))) * len(branches)
        return per_branch + F.mse_loss(
            _combined(branches, self.student_aggregation), _combined(teachers, self.teacher_aggregation)
        )


def _combined(logits: Tensor, how: str, temperature: float = 1.0) -> Tensor:
    """Returns the result of `combine_members` with the same arguments."""
    from ensdistill.methods.members import combine_members  # imported here, because it imports torch

    return combine_members(logits, how, temperature)
