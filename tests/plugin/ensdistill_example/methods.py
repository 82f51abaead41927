"""An augmentation, a loss, a perturbation, an average and a metric."""

from copy import deepcopy
from typing import Any

import torch

from ensdistill.data import StandardAugmentation
from ensdistill.methods.averaging import AveragingSettings
from ensdistill.methods.losses import WeightedDistillationLoss
from ensdistill.methods.metrics import Metric
from ensdistill.methods.perturbations import InputPerturbation
from ensdistill.settings.base import setting


class Negative(StandardAugmentation):
    """Inverts random images after the operations of the built-in augmentation."""

    share: float = setting(0.1, "Probability that an image is inverted.", ge=0, le=1)

    @property
    def changes_images(self):
        return self.share > 0 or super().changes_images

    def __call__(self, images, generator):
        images = super().__call__(images, generator)
        inverted = torch.rand(len(images), generator=generator, device=images.device) < self.share
        return torch.where(inverted[:, None, None, None], 255 - images, images)


class Focal(WeightedDistillationLoss):
    """Focal loss -mean_b sum_k p_k (1 - q_k)^gamma log q_k with the averaged teacher p. Lin et al. 2017, equation 4."""

    gamma: float = setting(2.0, "Exponent of 1 - q; 0 gives the cross-entropy.", ge=0, le=10)

    def distillation(self, student, teachers):
        p = (teachers / self.temperature).softmax(-1).mean(0)
        log_q = (student / self.temperature).log_softmax(-1)
        rest = (1 - log_q.exp()).clamp(min=1e-6)  # the gradient is finite for every gamma
        return -(p * rest**self.gamma * log_q).sum(-1).mean()


class PixelDropout(InputPerturbation):
    """Sets random pixels to black."""

    share: float = setting(0.1, "Probability that a pixel is set to black.", ge=0, le=1)

    def __call__(self, x, ensemble, student, streams):
        chance = torch.rand(x.shape, generator=streams.device, device=x.device)
        return x * (chance >= self.share)


class Median(AveragingSettings):
    """The median of each weight over the ends of the last epochs."""

    window: int = setting(3, "Number of epochs.", ge=1, le=100)

    def __call__(self, student):
        return _MedianAverage(self.window)


class _MedianAverage:
    def __init__(self, window: int) -> None:
        self.window = window
        self.kept: list[dict[str, torch.Tensor]] = []

    def update(self, student, progress):
        pass

    def epoch_ended(self, student, progress, judge):
        state = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
        self.kept = [*self.kept, state][-self.window :]

    def averaged(self, student):
        if not self.kept:
            return student
        average = deepcopy(student)
        stacked = {name: torch.stack([state[name] for state in self.kept]) for name in self.kept[0]}
        average.load_state_dict({name: tensors.median(0).values for name, tensors in stacked.items()})
        return average

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state):
        self.kept = state["kept"]


class LabelProbability(Metric):
    """Mean probability of the label."""

    higher_is_better = True

    def __call__(self, log_p, labels):
        return float(log_p.exp().gather(-1, labels[:, None]).mean())
