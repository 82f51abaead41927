"""Perturbations that mix each image with another image from the same batch.

Teachers and student are evaluated on the same mixture. The targets of the distillation term are the teacher outputs for
this mixture, not a mixture of teacher outputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from ensdistill.methods.perturbations.base import InputPerturbation, Labels
from ensdistill.runtime.lazy import np, torch
from ensdistill.runtime.randomness import RandomStreams
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor

    from ensdistill.methods.members import MultiClassifier


class MixturePerturbation(InputPerturbation):
    """Base class of perturbations that mix images b and p(b); one permutation p and one share are drawn per batch."""

    alpha: float = setting(
        1.0, "Parameter of Beta(alpha, alpha), from which the mixing share of each batch is drawn.", ge=0.05, le=100
    )
    label_images: Literal["clean", "perturbed"] = setting(
        "perturbed",
        "Images on which the label term is computed: `perturbed` for the mixtures, with both labels weighted by their "
        "shares; `clean` for the images before mixing.",
    )

    def __call__(
        self, x: Tensor, ensemble: MultiClassifier, student: MultiClassifier, streams: RandomStreams
    ) -> Tensor:
        """Returns mixtures (B,C,H,W) in [0,1]; all random numbers are drawn with `streams.host`."""
        return self._mix(x, streams.host)[0]

    def with_labels(
        self, x: Tensor, labels: Tensor, ensemble: MultiClassifier, student: MultiClassifier, streams: RandomStreams
    ) -> tuple[Tensor, Labels]:
        """Returns the mixtures and the labels for the label term.

        Args:
            x: Images (B,C,H,W) in [0,1].
            labels: Class indices (B,).
            ensemble: The teachers.
            student: The student.
            streams: The only source of random numbers.
        """
        mixtures, partners, share = self._mix(x, streams.host)
        clean = self.label_images == "clean"
        return mixtures, [(1.0, labels)] if clean else [(share, labels), (1 - share, labels[partners])]

    def _mix(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        """Returns the mixtures (B,C,H,W), the indices p(b) of the other images (B,), and the share of image b."""
        partners = torch.randperm(len(x), generator=generator).to(x.device)
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        share = float(np.random.default_rng(seed).beta(self.alpha, self.alpha))
        mixtures, share = self._mixtures(x, x[partners], share, generator)
        return mixtures, partners, share

    def _mixtures(self, x: Tensor, others: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, float]:
        """Returns mixtures of x and others (B,C,H,W), and the share of x in the mixtures."""
        raise NotImplementedError


class MixUp(MixturePerturbation):
    """Weighted means of two images.

    x'_b = lambda x_b + (1 - lambda) x_p(b),  lambda ~ Beta(alpha, alpha), p a random permutation

    Label term on the mixtures: lambda CE(y_b) + (1 - lambda) CE(y_p(b)). Both lambda and p are drawn once per batch.

    References:
        Zhang et al. 2018, mixup: Beyond empirical risk minimization, section 2.
        Beyer et al. 2022, Knowledge distillation: A good teacher is patient and consistent, section 3 (teacher and
        student receive the same mixtures).
    """

    kind: Literal["mixup"] = "mixup"

    def _mixtures(self, x: Tensor, others: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, float]:
        return torch.lerp(others, x, share), share


class CutMix(MixturePerturbation):
    """Images in which a rectangle is replaced by the same region of another image.

    The sides of the rectangle are sqrt(1 - lambda) H and sqrt(1 - lambda) W, rounded down, where lambda ~ Beta(alpha,
    alpha). The center is a random pixel, and the rectangle is clipped at the image borders. The rectangle and the
    permutation p are drawn once per batch.

    Label term on the mixtures: s CE(y_b) + (1 - s) CE(y_p(b)), where s is the fraction of pixels from image b.

    References:
        Yun et al. 2019, CutMix: Regularization strategy to train strong classifiers, section 3.1 and official code.
    """

    kind: Literal["cutmix"] = "cutmix"

    def _mixtures(self, x: Tensor, others: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, float]:
        rows, columns = (_interval(length, math.sqrt(1 - share), generator) for length in x.shape[2:])
        mixtures = x.clone()
        mixtures[:, :, rows, columns] = others[:, :, rows, columns]
        inside = (rows.stop - rows.start) * (columns.stop - columns.start)
        return mixtures, 1 - inside / x[0, 0].numel()


def _interval(length: int, share: float, generator: torch.Generator) -> slice:
    """Returns the interval that the rectangle covers along one axis."""
    side, center = int(length * share), int(torch.randint(length, (), generator=generator))
    return slice(max(0, center - side // 2), min(length, center - side // 2 + side))
