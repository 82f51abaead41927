"""Inputs that all trials of a study share: settings, data, teachers and their logits."""

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
    """Data as NumPy arrays, which Ray keeps in its object store; workers map them without a copy.

    Attributes:
        arrays: Images (N,C,H,W) and labels (N,) of `train`, `validation` and `unlabeled`.
        class_names: Names of the classes.
        identity: Hash of the data.
        warnings: Warnings about the data.
        own_validation: Whether the source has a separate validation split.
    """

    arrays: dict[str, Any]
    class_names: tuple[str, ...]
    identity: str
    warnings: tuple[ConfigIssue, ...] = ()
    own_validation: bool = False

    @classmethod
    def of(cls, data: DataSplits) -> "SharedData":
        """Packs data splits; `to` is the inverse."""
        arrays = {}
        for part in ("train", "validation", "unlabeled"):
            split: Split = getattr(data, part)
            arrays[part] = (split.images.cpu().numpy(), split.labels.cpu().numpy())
        return cls(arrays, data.class_names, data.identity, data.warnings, data.own_validation)

    def to(self, device: torch.device | str) -> DataSplits:
        """Returns the data on a device. On the CPU the images are views of shared memory and must not be written to."""
        train, validation, unlabeled = (
            Split(*map(torch.from_numpy, self.arrays[part])).to(device) for part in ("train", "validation", "unlabeled")
        )
        about = (self.class_names, self.identity, self.warnings, self.own_validation)
        return DataSplits(train, validation, unlabeled, *about)


@dataclass(frozen=True)
class SharedInputs:
    """Inputs that all trials share, stored once in Ray's object store.

    Attributes:
        study: The settings.
        folder: The folder of the study.
        data: Training, validation and unlabeled images.
        teacher_logits: Cache of teacher logits, filled before the first trial, with the ensemble of all trials.
        curve: Calibrated NLL in nats on validation of 1, 2, ..., M teachers.
    """

    study: StudyConfig
    folder: StudyDirectory
    data: SharedData
    teacher_logits: TeacherLogitCache
    curve: Sequence[float]

    @classmethod
    def of(
        cls,
        study: StudyConfig,
        folder: StudyDirectory,
        data: DataSplits,
        ensemble: TeacherEnsemble,
        curve: Sequence[float],
    ) -> "SharedInputs":
        """Packs the inputs of all trials and computes the teacher logits that trials share.

        Args:
            study: The settings.
            folder: The folder of the study.
            data: Splits of the study.
            ensemble: The teachers; they are moved to the CPU.
            curve: Calibrated NLL in nats on validation of 1, 2, ..., M teachers.
        """
        cache = TeacherLogitCache(ensemble)
        _precompute_teacher_logits(study, data, cache)
        ensemble.cpu()
        return cls(study, StudyDirectory(folder.path.resolve()), SharedData.of(data), cache, curve)

    def unpack(self, device: torch.device) -> tuple[DataSplits, TeacherEnsemble]:
        """Returns data and ensemble on a device."""
        return self.data.to(device), self.teacher_logits.ensemble.to(device)


def _precompute_teacher_logits(study: StudyConfig, data: DataSplits, cache: TeacherLogitCache) -> None:
    """Fills the cache with the logits that representative trials use; other trials compute missing logits themselves.

    They are computed on the device of the trials, because the last digits can differ between devices.
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
    """Returns the device on which trials are trained."""
    return torch.device("cuda" if study.resources.gpus else "cpu")
