"""Perturbations that move each image by one step, in a random direction or along a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.assignment import sample_pair
from ensdistill.methods.perturbations.base import StepPerturbation
from ensdistill.runtime.lazy import torch
from ensdistill.runtime.modes import evaluating
from ensdistill.runtime.randomness import RandomStreams
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor

    from ensdistill.methods.members import MultiClassifier


class Gaussian(StepPerturbation):
    """x' = clip(x + eta n), n ~ N(0, I): the random baseline of Nam et al. 2021, section 4."""

    kind: Literal["gaussian"] = "gaussian"
    label_images: Literal["clean", "perturbed"] = setting("clean", "Images on which the label term is computed.")

    def __call__(
        self, x: Tensor, ensemble: MultiClassifier, student: MultiClassifier, streams: RandomStreams
    ) -> Tensor:
        """Returns noisy images (B,C,H,W) in [0,1]; the noise is drawn with the generator `streams.device`."""
        noise = torch.randn(x.shape, generator=streams.device, device=x.device).to(x.dtype)
        return (x + self.step_size * noise).clamp(0, 1)


class Ods(StepPerturbation):
    """Output diversified sampling: a step that increases a random linear combination of one random teacher's outputs.

    g = grad_x w^T softmax(t_k(x) / T),  k uniform over teachers, drawn per batch;  w ~ U(-1, 1)^c, drawn per image
    x' = clip(x + eta sqrt(D) g / ||g||_2, 0, 1)

    Tashiro et al. 2020 use logits; the tempered softmax follows the official code of Nam et al. 2021.
    """

    kind: Literal["ods"] = "ods"
    temperature: float = setting(1.0, "Softmax temperature T for the teacher's outputs.", ge=0.05, le=100)
    label_images: Literal["clean", "perturbed"] = setting("clean", "Images on which the label term is computed.")

    def __call__(
        self, x: Tensor, ensemble: MultiClassifier, student: MultiClassifier, streams: RandomStreams
    ) -> Tensor:
        """Returns images (B,C,H,W) in [0,1]; k is drawn with `streams.host`, and w is drawn with `streams.device`."""
        teacher = int(torch.randint(len(ensemble), (), generator=streams.host))
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            outputs: Tensor = (ensemble(x, [teacher])[0] / self.temperature).softmax(-1)
            weights = torch.rand(outputs.shape, generator=streams.device, device=x.device).to(x.dtype) * 2 - 1
            direction = torch.autograd.grad((weights * outputs).sum(), x)[0]
        return self._step(x.detach(), direction, self._scale(outputs.detach()))

    def _scale(self, outputs: Tensor) -> Tensor | float:
        """Returns the factor (B,1,1,1) for each image's step, computed from the teacher's outputs (B,c)."""
        return 1.0


class ConfOds(Ods):
    """ODS in which each image's step is scaled by the teacher's confidence, max_c softmax(t_k(x) / T)_c.

    The more confident the prediction, the longer the step. Nam et al. 2021 (Diversity Matters), section 3.
    """

    kind: Literal["conf_ods"] = "conf_ods"  # type: ignore[assignment]

    def _scale(self, outputs: Tensor) -> Tensor | float:
        return outputs.amax(-1)[:, None, None, None]


class TDivSDiv(StepPerturbation):
    """A step towards inputs on which the teachers disagree and the subnetworks of the student agree.

    g = grad_x (H_T - H_S),  H = sum_b -sum_k sg[p_j]_k log p_i,k  for one random pair (i, j) per step
    x' = clip(x + eta sqrt(D) g / ||g||_2, 0, 1)

    The pair of teachers determines the pair of subnetworks (`ensdistill.methods.assignment`). Teachers and
    student run in evaluation mode, so that BatchNorm statistics do not change. At least two teachers are
    required. For a student with one subnetwork, the gradient of H_S is zero, and only H_T remains. Nam et al.
    2022, section 3, and their official code.
    """

    kind: Literal["tdiv_sdiv"] = "tdiv_sdiv"
    label_images: Literal["clean", "perturbed"] = setting("perturbed", "Images on which the label term is computed.")

    def __call__(
        self, x: Tensor, ensemble: MultiClassifier, student: MultiClassifier, streams: RandomStreams
    ) -> Tensor:
        """Returns images (B,C,H,W) in [0,1]; both pairs are drawn with `streams.host`."""
        teachers, subnetworks = sample_pair(len(ensemble), len(student), streams.host)
        return self._step(x, self.direction(x, ensemble, student, teachers, subnetworks))

    @staticmethod
    def direction(
        x: Tensor,
        ensemble: MultiClassifier,
        student: MultiClassifier,
        teachers: tuple[int, int],
        subnetworks: tuple[int, int],
    ) -> Tensor:
        """Returns the direction g (B,C,H,W) for two teachers and two subnetworks; g is not normalized."""
        with evaluating(student), torch.enable_grad():
            x = x.detach().requires_grad_()
            objective = _disagreement(ensemble, x, *teachers) - _disagreement(student, x, *subnetworks)
            gradient: Tensor = torch.autograd.grad(objective, x)[0]
        return gradient


def _disagreement(network: MultiClassifier, x: Tensor, i: int, j: int) -> Tensor:
    """Returns a scalar whose gradient is that of the cross-entropy with targets p_j, sum_b -sum_k sg[p_j]_k log p_i,k.

    The gradient with respect to the logits z_i is p_i - p_j, which is exactly zero where the members agree.
    Differentiating the logarithm would leave rounding errors there, which the normalization would amplify to a full
    step.
    """
    with torch.no_grad():
        p_j: Tensor = network(x, [j]).softmax(-1)
    z_i: Tensor = network(x, [i])
    return ((z_i.detach().softmax(-1) - p_j) * z_i).sum()
