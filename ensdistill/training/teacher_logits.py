"""What the teachers say of images that are never shown otherwise than as they are: asked once, recalled ever after."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ensdistill.config import Config
from ensdistill.data import Augmentation, DataSplits, Split
from ensdistill.evaluation.predict import BATCH
from ensdistill.methods.members import MultiClassifier, TeacherEnsemble
from ensdistill.methods.perturbations import NoPerturbation
from ensdistill.runtime.randomness import deterministic, temporary_seed


class CachedTeachers(MultiClassifier):
    """The teachers before a batch of which they have spoken already: they give what they said, and look no more."""

    def __init__(self, logits: Tensor) -> None:
        """logits: (M,B,classes)."""
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        return self.logits if members is None else self.logits[list(members)]

    def __len__(self) -> int:
        return len(self.logits)


def cached_teacher_logits(ensemble: TeacherEnsemble, data: DataSplits, config: Config) -> Tensor | None:
    """The teachers' logits of all training images, then of the unlabeled ones if they ride along: (M,N,classes).

    None where a perturbation or an augmentation shows other images at every step. The teachers are asked once, in
    float32, and the ensemble keeps what they say. Where it is allowed it is always done, and always in the same way,
    so that no number depends on who asked first. Never to be written to: the memory may be shared between processes.
    """
    as_they_are = isinstance(config.perturbation, NoPerturbation) and config.training.augmentation == Augmentation()
    if not (as_they_are and len(ensemble)):
        return None
    parts = [data.train, data.unlabeled] if config.training.unlabeled_batch_size else [data.train]
    device, threads = data.train.images.device, config.training.threads
    view = (*(part.content for part in parts), device.type, str(threads))
    if view not in ensemble.said:
        with deterministic(threads), temporary_seed(0, device), torch.no_grad():
            ensemble.said[view] = torch.cat([_predict_all(ensemble, part) for part in parts], 1).cpu().numpy()
    return torch.from_numpy(ensemble.said[view]).to(device)


def _predict_all(ensemble: TeacherEnsemble, split: Split) -> Tensor:
    return torch.cat([ensemble(split[slice(n, n + BATCH)][0]) for n in range(0, len(split), BATCH)], 1)
