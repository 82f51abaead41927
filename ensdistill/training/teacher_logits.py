"""Cache of teacher logits for images that are never augmented or perturbed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ensdistill.config import Config
from ensdistill.data import DataSplits, Split
from ensdistill.evaluation.predict import batches
from ensdistill.methods.members import MultiClassifier, TeacherEnsemble
from ensdistill.methods.perturbations import NoPerturbation
from ensdistill.runtime.randomness import deterministic, temporary_seed


class CachedTeachers(MultiClassifier):
    """Teacher ensemble that returns the cached logits of one batch and ignores its input."""

    def __init__(self, logits: Tensor) -> None:
        """Stores the logits of the batch, (M,B,classes)."""
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        return self.logits if members is None else self.logits[list(members)]

    def __len__(self) -> int:
        return len(self.logits)

    def for_images(self, part: slice) -> "CachedTeachers":
        return CachedTeachers(self.logits[:, part])


class TeacherLogitCache:
    """Logits of one ensemble for all training images, shared by all runs that use the ensemble.

    The cache can be pickled, so a new worker receives all logits that have already been computed. Whether a run uses
    the cache depends only on the settings of the run, and logits are always computed in the same way (float32, fixed
    batches). Results therefore do not depend on which run filled the cache.

    Attributes:
        ensemble: The teachers.
        arrays: Logits (M,N,classes), keyed by image content, device and number of threads. They can be in shared
            memory; never write to them.
    """

    def __init__(self, ensemble: TeacherEnsemble) -> None:
        self.ensemble = ensemble
        self.arrays: dict[tuple[str, ...], np.ndarray] = {}

    def logits(self, data: DataSplits, config: Config) -> Tensor | None:
        """Returns teacher logits for all training images, then for all unlabeled images if the run uses them.

        Args:
            data: The images.
            config: Settings of the run.

        Returns:
            Logits (M,N,classes) on the device of the data; never write to them. None if there are no teachers, or if a
            perturbation or an augmentation changes the images at every step.
        """
        unchanged = type(config.perturbation) is NoPerturbation and not config.training.augmentation.changes_images
        if not (unchanged and len(self.ensemble)):
            return None
        parts = [data.train, data.unlabeled] if config.training.unlabeled_batch_size else [data.train]
        device, threads = data.train.images.device, config.training.threads
        view = (*(part.content for part in parts), device.type, str(threads))
        if view not in self.arrays:
            with deterministic(threads), temporary_seed(0, device), torch.no_grad():
                self.arrays[view] = torch.cat([self._predict_all(part) for part in parts], 1).cpu().numpy()
        return torch.from_numpy(self.arrays[view]).to(device)

    def _predict_all(self, split: Split) -> Tensor:
        """Returns the logits (M,N,classes) for a split, computed in fixed batches."""
        return torch.cat([self.ensemble(split[batch][0]) for batch in batches(split)], 1)
