"""Distillation of relations: the student matches the teacher only up to an affine map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import WeightedDistillationLoss
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-8  # gives constant rows and columns a correlation of 0, as in the official code


class Dist(WeightedDistillationLoss):
    """Maximizes the correlation between student and averaged teacher probabilities instead of matching their values.

    L = (1 - alpha) CE(labels, student) + alpha T^2 (beta (1 - mean_b r_b) + gamma (1 - mean_c r_c))

    r_b is Pearson's correlation between student and teacher probabilities, taken over the classes for image b (relation
    between classes). r_c is the same correlation, taken over the images of the batch for class c (relation within a
    class). Teachers are averaged at temperature T. Correlations do not determine the scale of the logits, so only
    calibrated metrics are comparable. The second relation depends on the batch and is not defined for a batch with one
    image.

    Huang et al. 2022 (DIST, NeurIPS) and their official code. The official code uses one teacher, weight 1 for the
    labels and weight 2 for each relation; the default weights here have the same ratios.
    """

    kind: Literal["dist"] = "dist"
    alpha: float = setting(
        0.5, "Weight alpha of the distillation term; the weight of the label term is 1 - alpha.", ge=0, le=1
    )
    between_classes: float = setting(
        2.0, "Weight beta of the relation between classes, computed for each image.", ge=0, le=1000
    )
    within_class: float = setting(
        2.0, "Weight gamma of the relation between images, computed for each class.", ge=0, le=1000
    )

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        exact = torch.promote_types(student.dtype, torch.float32)  # half precision is too coarse for correlations
        s = (student.to(exact) / self.temperature).softmax(-1)
        t = (teachers.to(exact) / self.temperature).softmax(-1).mean(0, keepdim=True)
        between = 1 - _correlation(s, t, -1).mean()
        within = 1 - _correlation(s, t, -2).mean()
        return self.temperature**2 * (self.between_classes * between + self.within_class * within)


def _correlation(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Returns Pearson's correlation along an axis."""
    a, b = a - a.mean(axis, keepdim=True), b - b.mean(axis, keepdim=True)
    spread: Tensor = torch.linalg.vector_norm(a, dim=axis) * torch.linalg.vector_norm(b, dim=axis) / a.shape[axis]
    return (a * b).mean(axis) / (spread + EPSILON)
