"""Distillation loss in which each subnetwork learns from a separate teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.assignment import subnetwork_targets
from ensdistill.methods.losses.base import WeightedDistillationLoss
from ensdistill.methods.losses.losses import kl_divergence
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


class OneToOne(WeightedDistillationLoss):
    """Subnetwork m matches teacher m (see `ensdistill.methods.assignment` if K and M differ).

    L = (1 - alpha) CE(labels, student) + alpha T^2 mean_m KL(teacher_m || subnetwork_m)

    Nam et al. 2021 (Diversity Matters) and Nam et al. 2022 (LatentBE), as in their official code. The published
    LatentBE runs use alpha = 1, that is, no label term.
    """

    kind: Literal["one_to_one"] = "one_to_one"
    alpha: float = setting(
        1.0, "Weight alpha of the distillation term; the weight of the label term is 1 - alpha.", ge=0, le=1
    )

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        tempered = (teachers / self.temperature).softmax(-1)
        return kl_divergence(subnetwork_targets(tempered, len(student)), student, self.temperature)
