"""UniKD: teacher and image weights based on correctness (labeled images) and disagreement (unlabeled images)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import DistillationLoss
from ensdistill.methods.losses.losses import (
    UNLABELED,
    kl_divergence_from_log,
    kl_per_example,
    label_cross_entropy,
    others_losses_weights,
    safe_log,
    teacher_losses,
    weighted_sum,
)
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


class UniKd(DistillationLoss):
    """Reconstruction of UniKD from the abstract: the formulas are guesses, because the paper's were not available.

    L = CE(y, q) + a mean_b v_b T^2 KL(sum_i w_bi p_bi || q_b)       over labeled images b
                 + e mean_b u_b T^2 KL(mean_i p_bi || q_b)           over unlabeled images b

    w is the correctness of teacher i on image b, v the correctness of the mixture, and u the disagreement of the
    teachers. All three weights are computed from probabilities at T = 1; no gradient flows through them. The
    denominator of each mean is the number of images, not the sum of the weights. After Wu et al., arXiv 2204.00548;
    `others_losses` is the weighting from CA-MKD (Zhang et al. 2022).
    """

    kind: Literal["unikd"] = "unikd"
    temperature: float = setting(4.0, "Softmax temperature of teachers and student.", ge=0.05, le=100)
    labeled_weight: float = setting(1.0, "Weight a of distillation on labeled images.", ge=0, le=1000)
    unlabeled_weight: float = setting(1.0, "Weight e of distillation on unlabeled images.", ge=0, le=1000)
    teacher_weighting: Literal["probability", "inverse_loss", "others_losses"] = setting(
        "probability", "Weight w of a teacher: p_i(y), 1/(1 + CE_i), or 1 - softmax_i(CE); normalized over teachers."
    )
    sample_weighting: Literal["probability", "inverse_loss"] = setting(
        "probability", "Weight v of a labeled image: p(y) or 1/(1 + CE) of the mixture of teachers."
    )
    disagreement: Literal["jensen_shannon", "pairwise_kl", "variance", "deviation"] = setting(
        "jensen_shannon",
        "Weight u of an unlabeled image: mean KL(p_i || mean); mean KL(p_i || p_j); variance over teachers, summed "
        "over classes; or standard deviation over teachers, averaged over classes.",
    )
    normalize: bool = setting(False, "Divide u by its batch mean, so that the scale of u does not affect the loss.")

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        labeled = labels != UNLABELED  # used as a mask, because boolean indexing would synchronize host and device
        return weighted_sum(
            (1.0, lambda: label_cross_entropy(on_labels, labels)),
            (
                self.labeled_weight,
                lambda: _mean(self._on_labeled(student, teachers, labels.clamp(min=0)), labeled),
            ),
            (self.unlabeled_weight, lambda: _mean(self._on_unlabeled(student, teachers, ~labeled), ~labeled)),
        )

    def _on_labeled(self, student: Tensor, teachers: Tensor, labels: Tensor) -> Tensor:
        """Returns v_b T^2 KL, (K,B)."""
        w = self.teacher_weights(teachers, labels)
        v = self.label_weights(teachers, labels)
        mixture = (w[..., None] * (teachers / self.temperature).softmax(-1)).sum(0)
        return v * kl_per_example(mixture, student, self.temperature)

    def _on_unlabeled(self, student: Tensor, teachers: Tensor, unlabeled: Tensor) -> Tensor:
        """Returns u_b T^2 KL, (K,B)."""
        u = self.disagreements(teachers, unlabeled)
        average = (teachers / self.temperature).softmax(-1).mean(0)
        return u * kl_per_example(average, student, self.temperature)

    def teacher_weights(self, teachers: Tensor, labels: Tensor) -> Tensor:
        """Returns the weights w of the teachers.

        Args:
            teachers: Logits (M,B,c).
            labels: Class indices (B,).

        Returns:
            Weights (M,B) that sum to 1 over teachers; equal if the label has probability 0 under every teacher.
        """
        loss = teacher_losses(teachers, labels)
        if self.teacher_weighting == "probability":
            return (-loss).softmax(0)
        if self.teacher_weighting == "others_losses":
            return others_losses_weights(loss)
        weights = 1 / (1 + loss)
        return weights / weights.sum(0).clamp(min=1e-12) if len(teachers) > 1 else torch.ones_like(loss)

    def label_weights(self, teachers: Tensor, labels: Tensor) -> Tensor:
        """Returns the weights v of labeled images, (B,) in [0,1].

        Args:
            teachers: Logits (M,B,c).
            labels: Class indices (B,).
        """
        mixture = (self.teacher_weights(teachers, labels)[..., None] * teachers.softmax(-1)).sum(0)
        right = mixture.gather(-1, labels[:, None]).squeeze(-1)
        return right if self.sample_weighting == "probability" else 1 / (1 - safe_log(right))

    def disagreements(self, teachers: Tensor, among: Tensor | None = None) -> Tensor:
        """Returns the weights u of unlabeled images, (B,), zero where all teachers agree.

        The weights are computed in float64, so that rounding errors are far smaller than any real disagreement.

        Args:
            teachers: Logits (M,B,c).
            among: Mask (B,) of the images that determine the mean for `normalize`; all images by default.
        """
        u = self._disagreements(teachers.double())
        if self.normalize:
            u = u / _mean(u, torch.ones_like(u) if among is None else among).clamp(min=1e-12)
        return u.to(teachers.dtype)

    def _disagreements(self, teachers: Tensor) -> Tensor:
        """Returns u before normalization, (B,), computed from logits (M,B,c) in float64."""
        p = teachers.softmax(-1)
        average = p.mean(0)
        if self.disagreement == "jensen_shannon":
            return kl_divergence_from_log(p, safe_log(average)).mean(0).clamp(min=0)
        if self.disagreement == "pairwise_kl":
            return _pairwise_kl(teachers)
        if self.disagreement == "variance":
            return (p - average).square().mean(0).sum(-1)
        return (p - average).square().mean(0).sqrt().mean(-1)


def _pairwise_kl(teachers: Tensor) -> Tensor:
    """Returns the mean of KL(p_i || p_j) over ordered pairs of different teachers, (B,); zero for one teacher."""
    p, m = teachers.softmax(-1), len(teachers)
    divergences = kl_divergence_from_log(p.unsqueeze(1), safe_log(p).unsqueeze(0))
    return divergences.sum((0, 1)).clamp(min=0) / max(1, m * (m - 1))


def _mean(losses: Tensor, among: Tensor) -> Tensor:
    """Returns the mean of losses (...,B) over leading axes and the images in the mask (B,); zero for an empty mask."""
    counted = among.expand_as(losses).to(losses.dtype)
    return (losses * counted).sum() / counted.sum().clamp(min=1)
