"""Which teacher to believe, and which image to learn from: by correctness with a label, by disagreement without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import DistillationLoss
from ensdistill.methods.losses.losses import (
    UNLABELED,
    kl_divergence_from_log,
    kl_per_example,
    label_cross_entropy,
    safe_log,
    weighted_sum,
)
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


LARGEST = 1e9  # nats; a loss beyond it counts as this one, and weights of equal losses are equal


class UniKd(DistillationLoss):
    """Reconstruction of UniKD: published is the structure (abstract); these formulas are candidates for the paper's.

    L = CE(y, q) + a mean_b v_b T^2 KL(sum_i w_bi p_bi || q_b)       over labeled images b
                 + e mean_b u_b T^2 KL(mean_i p_bi || q_b)           over unlabeled images b

    w: how right each teacher i is on image b; v: how right the mixture is; u: how much the teachers disagree. All three
    come from probabilities at T = 1 and are constants to the gradient. Means divide by the number of images, not by
    the sum of weights. After Wu et al., arXiv 2204.00548; `others_losses` is that of CA-MKD (Zhang et al. 2022).
    """

    kind: Literal["unikd"] = "unikd"
    temperature: float = setting(4.0, "Softmax temperature of teachers and student.", ge=0.05, le=100)
    labeled_weight: float = setting(1.0, "Weight a of distillation on labeled images.", ge=0, le=1000)
    unlabeled_weight: float = setting(1.0, "Weight e of distillation on unlabeled images.", ge=0, le=1000)
    teacher_weighting: Literal["probability", "inverse_loss", "others_losses"] = setting(
        "probability", "Weight w of a teacher: p_i(y), 1/(1 + CE_i), or 1 - softmax_i(CE); normalized over teachers."
    )
    sample_weighting: Literal["probability", "inverse_loss"] = setting(
        "probability", "Weight v of a labeled image: the mixture's p(y), or 1/(1 + CE) of it."
    )
    disagreement: Literal["jensen_shannon", "pairwise_kl", "variance", "deviation"] = setting(
        "jensen_shannon",
        "Weight u of an unlabeled image: mean KL(p_i || mean), mean KL(p_i || p_j), summed variance over teachers, "
        "or mean standard deviation over teachers.",
    )
    normalize: bool = setting(False, "Divide u by its mean over the batch, which frees the loss from its scale.")

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        labeled = labels != UNLABELED  # a mask: to pick images by it would have the device wait for the host
        return weighted_sum(
            (1.0, lambda: label_cross_entropy(on_labels, labels)),
            (
                self.labeled_weight,
                lambda: _mean(self._on_labeled(student, teachers, labels.clamp(min=0)), labeled),
            ),
            (self.unlabeled_weight, lambda: _mean(self._on_unlabeled(student, teachers, ~labeled), ~labeled)),
        )

    def _on_labeled(self, student: Tensor, teachers: Tensor, labels: Tensor) -> Tensor:
        """v_b T^2 KL, (K,B)."""
        w = self.teacher_weights(teachers, labels)
        v = self.label_weights(teachers, labels)
        mixture = (w[..., None] * (teachers / self.temperature).softmax(-1)).sum(0)
        return v * kl_per_example(mixture, student, self.temperature)

    def _on_unlabeled(self, student: Tensor, teachers: Tensor, unlabeled: Tensor) -> Tensor:
        """u_b T^2 KL, (K,B)."""
        u = self.disagreements(teachers, unlabeled)
        average = (teachers / self.temperature).softmax(-1).mean(0)
        return u * kl_per_example(average, student, self.temperature)

    def teacher_weights(self, teachers: Tensor, labels: Tensor) -> Tensor:
        """w: logits (M,B,c) and labels (B,) -> (M,B), sums to one over teachers; equal where all rule the label out."""
        loss = _losses(teachers, labels)
        if self.teacher_weighting == "probability":
            return (-loss).softmax(0)
        weights = 1 / (1 + loss) if self.teacher_weighting == "inverse_loss" else 1 - loss.softmax(0)
        return weights / weights.sum(0).clamp(min=1e-12) if len(teachers) > 1 else torch.ones_like(loss)

    def label_weights(self, teachers: Tensor, labels: Tensor) -> Tensor:
        """v: logits (M,B,c) and labels (B,) -> (B,), in [0,1]."""
        mixture = (self.teacher_weights(teachers, labels)[..., None] * teachers.softmax(-1)).sum(0)
        right = mixture.gather(-1, labels[:, None]).squeeze(-1)
        return right if self.sample_weighting == "probability" else 1 / (1 - safe_log(right))

    def disagreements(self, teachers: Tensor, among: Tensor | None = None) -> Tensor:
        """u: logits (M,B,c) -> (B,), zero where all teachers agree; in float64, where rounding stays below all else.

        among: (B,), which images `normalize` takes the mean of; all by default.
        """
        u = self._disagreements(teachers.double())
        if self.normalize:
            u = u / _mean(u, torch.ones_like(u) if among is None else among).clamp(min=1e-12)
        return u.to(teachers.dtype)

    def _disagreements(self, teachers: Tensor) -> Tensor:
        p = teachers.softmax(-1)
        average = p.mean(0)
        if self.disagreement == "jensen_shannon":
            return kl_divergence_from_log(p, safe_log(average)).mean(0).clamp(min=0)
        if self.disagreement == "pairwise_kl":
            return _pairwise_kl(teachers)
        if self.disagreement == "variance":
            return (p - average).square().mean(0).sum(-1)
        return (p - average).square().mean(0).sqrt().mean(-1)


def _losses(teachers: Tensor, labels: Tensor) -> Tensor:
    """CE_i, (M,B): how wrong each teacher is; finite where it rules the label out."""
    log_p = teachers.log_softmax(-1)
    loss = -log_p.gather(-1, labels.expand(len(teachers), -1)[..., None]).squeeze(-1)
    return loss.clamp(max=LARGEST)


def _pairwise_kl(teachers: Tensor) -> Tensor:
    """Mean over ordered pairs i, j (not equal) of KL(p_i || p_j), (B,); zero for one teacher."""
    p, m = teachers.softmax(-1), len(teachers)
    apart = kl_divergence_from_log(p.unsqueeze(1), safe_log(p).unsqueeze(0))
    return apart.sum((0, 1)).clamp(min=0) / max(1, m * (m - 1))


def _mean(losses: Tensor, among: Tensor) -> Tensor:
    """Over subnetworks, if there are any, and the images among (B,): (...,B) -> (); zero if there is no such image."""
    counted = among.expand_as(losses).to(losses.dtype)
    return (losses * counted).sum() / counted.sum().clamp(min=1)
