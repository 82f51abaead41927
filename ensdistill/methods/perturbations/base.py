"""Base classes of the perturbations, and the perturbation `none`, which leaves images unchanged.

Images have shape (B,C,H,W) and values in [0,1]. Every perturbation returns detached images with the same shape and
range. `ensemble(x, [i])` and `student(x, [k])` return the logits (1,B,c) of one member.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from ensdistill.runtime.lazy import F
from ensdistill.runtime.randomness import RandomStreams
from ensdistill.settings.base import setting
from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from torch import Tensor

    from ensdistill.methods.members import MultiClassifier

Labels: TypeAlias = "list[tuple[float, Tensor]]"  # pairs: share of the loss, and class indices (B,), -1 for unlabeled


class InputPerturbation(Piece):
    """Base class of all perturbations."""

    label_images: Literal["clean", "perturbed"] = setting("clean", "Images on which the label term is computed.")

    def __call__(
        self, x: Tensor, ensemble: MultiClassifier, student: MultiClassifier, streams: RandomStreams
    ) -> Tensor:
        """Returns the images on which teachers and student are evaluated.

        Args:
            x: Images (B,C,H,W) in [0,1].
            ensemble: The teachers.
            student: The student, in training mode; its weights, buffers and mode are unchanged afterwards.
            streams: The only source of random numbers.

        Returns:
            Detached images with the same shape, type and range as x.
        """
        raise NotImplementedError

    def with_labels(
        self, x: Tensor, labels: Tensor, ensemble: MultiClassifier, student: MultiClassifier, streams: RandomStreams
    ) -> tuple[Tensor, Labels]:
        """Returns the perturbed images and the labels for the label term.

        A perturbation that changes the labels of images overrides this method. The loss is sum_i
        share_i loss(labels_i).

        Args:
            x: Images (B,C,H,W) in [0,1].
            labels: Class indices (B,), -1 for an unlabeled image.
            ensemble: The teachers.
            student: The student.
            streams: The only source of random numbers.

        Returns:
            The perturbed images, and pairs (share, class indices (B,)); the shares add up to 1.
        """
        return self(x, ensemble, student, streams), [(1.0, labels)]


class NoPerturbation(InputPerturbation):
    """x' = x: teachers and student are evaluated on the training images themselves."""

    kind: Literal["none"] = "none"
    label_images: Literal["perturbed"] = setting(
        "perturbed", "Images on which the label term is computed; has no effect here."
    )

    def __call__(
        self, x: Tensor, ensemble: MultiClassifier, student: MultiClassifier, streams: RandomStreams
    ) -> Tensor:
        """Returns x itself."""
        return x


class StepPerturbation(InputPerturbation):
    """Base class of perturbations that move each image by a step of fixed L2 length."""

    step_size: float = setting(
        1 / 255,
        "Step per pixel, for images in [0,1]; the L2 norm of the step is sqrt(C*H*W) times this value.",
        ge=0,
        le=1,
    )

    def _step(self, x: Tensor, direction: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Returns x + scale eta sqrt(D) g/||g||, clipped to [0,1]; ||g|| is per image, and g = 0 gives no step.

        `scale` is a single number, or a tensor (B,1,1,1) with one number per image.
        """
        unit = F.normalize(direction.flatten(1), dim=1, eps=1e-12).view_as(x)
        length = self.step_size * math.sqrt(x[0].numel())
        return (x + scale * length * unit).clamp(0, 1).detach()
