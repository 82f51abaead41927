"""What all trials of a study share: its settings, data, teachers and their logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ensdistill.data import DataSplits, Split
from ensdistill.errors import ConfigIssue
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.training.teacher_logits import TeacherLogitCache
from ensdistill_tune.execution.memory import free_memory
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.study.study_config import StudyConfig


@dataclass(frozen=True)
class SharedData:
    """Data as NumPy arrays, which Ray keeps in its object store and workers map, not copy."""

    arrays: dict[str, Any]
    class_names: tuple[str, ...]
    identity: str
    warnings: tuple[ConfigIssue, ...] = ()
    own_validation: bool = False

    @classmethod
    def of(cls, data: DataSplits) -> "SharedData":
        """Packs what `to` gives back."""
        arrays = {}
        for part in ("train", "validation", "unlabeled"):
            split: Split = getattr(data, part)
            arrays[part] = (split.images.cpu().numpy(), split.labels.cpu().numpy())
        return cls(arrays, data.class_names, data.identity, data.warnings, data.own_validation)

    def to(self, device: torch.device | str) -> DataSplits:
        """The data on a device. On the CPU the images are the shared memory itself: never write to them."""
        train, validation, unlabeled = (
            Split(*map(torch.from_numpy, self.arrays[part])).to(device) for part in ("train", "validation", "unlabeled")
        )
        about = (self.class_names, self.identity, self.warnings, self.own_validation)
        return DataSplits(train, validation, unlabeled, *about)


@dataclass(frozen=True)
class SharedInputs:
    """What all trials share; Ray's object store holds it once."""

    study: StudyConfig
    folder: StudyDirectory
    data: SharedData
    teacher_logits: TeacherLogitCache  # with what was computed before the first trial; its ensemble teaches all trials
    curve: Sequence[float]  # calibrated NLL on validation of 1, 2, ..., M teachers

    @classmethod
    def of(
        cls,
        study: StudyConfig,
        folder: StudyDirectory,
        data: DataSplits,
        ensemble: TeacherEnsemble,
        curve: Sequence[float],
    ) -> "SharedInputs":
        """Packs what `unpack` returns, and computes the teacher logits that trials have in common."""
        cache = TeacherLogitCache(ensemble)
        _precompute_teacher_logits(study, data, cache)
        ensemble.cpu()
        return cls(study, StudyDirectory(folder.path.resolve()), SharedData.of(data), cache, curve)

    def unpack(self, device: torch.device) -> tuple[DataSplits, TeacherEnsemble]:
        """Data and ensemble on the device."""
        return self.data.to(device), self.teacher_logits.ensemble.to(device)


def _precompute_teacher_logits(study: StudyConfig, data: DataSplits, cache: TeacherLogitCache) -> None:
    """Fills the cache with what representative trials look up in it; another trial computes what it misses itself.

    On the device of the trials, whose numbers differ in the last digits from those of others, or not at all.
    """
    device = device_of(study)
    if device.type == "cuda" and not torch.cuda.is_available():
        return
    data, ensemble = data.to(device), cache.ensemble.to(device)
    for config in study.representative_configs:
        cache.logits(data, config)
    if device.type == "cuda":
        ensemble.cpu()
        free_memory()


def device_of(study: StudyConfig) -> torch.device:
    """Where trials are trained."""
    return torch.device("cuda" if study.resources.gpus else "cpu")
