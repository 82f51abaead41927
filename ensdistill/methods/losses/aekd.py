"""Adaptive teacher weights, chosen so that a gradient step brings the student closer to all teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import TeacherWeightedLoss
from ensdistill.methods.losses.losses import kl_per_example
from ensdistill.methods.losses.min_norm import min_norm_weights
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


class AeKd(TeacherWeightedLoss):
    """L = a CE(y, s) + b sum_m w_m KD_m,   KD_m = T^2 mean_b KL(teacher_m || s)

    w = argmin |sum_m w_m g_m|  with  sum w = 1,  0 <= w_m <= C,   g_m = d KD_m / ds averaged over the batch.

    g_m has the closed form (T/B) mean_b (softmax(s_b/T) - softmax(t_mb/T)), so no additional backward pass is required.
    At every step, the exact w is computed for each subnetwork; no gradient flows through w. The computation runs on the
    CPU and requires only M x M numbers per subnetwork. Copying these numbers is the only synchronization with the
    device. With C = 1/M, the loss is the mean over teachers.

    Du et al. 2020 (AE-KD), equations 9 to 11, and their official code. If gradients are small, the official solver
    stops at its starting point; here, the weights do not depend on the scale of the gradients. The official code has
    two variants; only the variant for logits is implemented, not the variant for features (hint term).
    """

    kind: Literal["aekd"] = "aekd"
    teacher_weight: float = setting(0.9, "Weight b of the distillation term.", ge=0, le=1000)
    tolerance: float = setting(0.6, "Maximum weight C of one teacher; 1/M or less gives equal weights.", gt=0, le=1)

    def distillation(self, student: Tensor, teachers: Tensor, labels: Tensor) -> Tensor:
        """Returns the scalar sum_m w_m KD_m, averaged over subnetworks."""
        tempered = (teachers / self.temperature).softmax(-1)
        losses = kl_per_example(tempered.unsqueeze(0), student.unsqueeze(1), self.temperature).mean(-1)  # (K,M)
        return (self.teacher_weights(student, teachers) * losses).sum(-1).mean()

    def teacher_weights(self, student: Tensor, teachers: Tensor) -> Tensor:
        """Returns the weights w of the teachers.

        Args:
            student: Logits (K,B,c).
            teachers: Logits (M,B,c).

        Returns:
            Weights (K,M) in [0,C]; each row sums to 1.
        """
        directions = self.directions(student, teachers)
        gram = (directions @ directions.mT).cpu().numpy()
        weights = [torch.from_numpy(min_norm_weights(g, self.tolerance)) for g in gram]
        return torch.stack(weights).to(student)

    def directions(self, student: Tensor, teachers: Tensor) -> Tensor:
        """Returns the gradients g (K,M,c) in float64, computed from logits (K,B,c) and (M,B,c)."""
        s, t = ((logits.detach().double() / self.temperature).softmax(-1) for logits in (student, teachers))
        difference = s.unsqueeze(1) - t.unsqueeze(0)
        return difference.mean(2) * (self.temperature / student.shape[1])
