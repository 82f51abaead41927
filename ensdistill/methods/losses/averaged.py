"""Knowledge distillation from the averaged ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import WeightedDistillationLoss
from ensdistill.methods.losses.losses import kl_divergence, safe_log
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


class Averaged(WeightedDistillationLoss):
    """Every subnetwork learns from the average of all teachers.

    L = (1 - alpha) CE(labels, student) + alpha T^2 KL(average teacher || student)

    The averages `tempered_probabilities` and `losses` give the same gradient; the values of their distillation terms
    differ by T^2 times the Jensen-Shannon divergence of the teachers. The other two averages define different targets.
    Hinton et al. 2015, section 2.
    """

    kind: Literal["averaged"] = "averaged"
    average: Literal["tempered_probabilities", "probabilities", "logits", "losses"] = setting(
        "tempered_probabilities",
        "Quantity averaged over teachers: probabilities at temperature T; probabilities at temperature 1, which are "
        "tempered after averaging; logits; or losses.",
    )

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        return kl_divergence(self._target(teachers), student.unsqueeze(0), self.temperature)

    def _target(self, teachers: Tensor) -> Tensor:
        """Returns the target probabilities: (M,1,B,c) with `losses`, otherwise one averaged teacher, (1,1,B,c)."""
        if self.average == "logits":
            teachers = teachers.mean(0, keepdim=True)
        elif self.average == "probabilities":
            teachers = safe_log(teachers.softmax(-1).mean(0, keepdim=True))
        tempered = (teachers / self.temperature).softmax(-1).unsqueeze(1)
        return tempered if self.average == "losses" else tempered.mean(0, keepdim=True)
