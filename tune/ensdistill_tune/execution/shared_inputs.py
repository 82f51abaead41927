"""Inputs that all trials of a study share: settings, data, teachers and teacher logits."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ensdistill.data import DataSource, DataSplits, Split, load_data
from ensdistill.data.shared_images import SharedImages
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.training.teacher_logits import TeacherLogitCache
from ensdistill_tune.execution.memory import free_memory
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.study.study_config import StudyConfig


@dataclass(frozen=True)
class SharedData:
    """Data as NumPy arrays, which Ray keeps in its object store; workers map these arrays without copying them.

    Images in a store of decoded images are not copied: each worker opens the store on its machine.

    Attributes:
        source: Settings of the data source.
        studies: Folder that contains all studies.
        arrays: Pairs of images (N,C,H,W) and labels (N,), keyed by `train`, `validation` and `unlabeled`.
        class_names: Names of the classes.
        identity: Hash of the data.
        warnings: Warnings about the data.
        own_validation: Whether the source has a separate validation split.
    """

    source: DataSource
    studies: Path
    arrays: dict[str, Any]
    class_names: tuple[str, ...]
    identity: str
    warnings: tuple[ConfigIssue, ...] = ()
    own_validation: bool = False

    @classmethod
    def of(cls, data: DataSplits, source: DataSource, studies: Path) -> "SharedData":
        """Packs data splits as NumPy arrays; `to` converts the arrays back to data splits.

        Args:
            data: The splits, in memory or in a store, on any device.
            source: Settings of the data source.
            studies: Folder that contains all studies.
        """
        arrays = {}
        for part in ("train", "validation", "unlabeled"):
            split: Split = getattr(data, part)
            images = split.images.to("cpu")
            arrays[part] = (images if isinstance(images, SharedImages) else images.numpy(), split.labels.cpu().numpy())
        about = (data.class_names, data.identity, data.warnings, data.own_validation)
        return cls(source, studies.resolve(), arrays, *about)

    def to(self, device: torch.device | str) -> DataSplits:
        """Returns the data on a device. On the CPU the images are views of shared memory and must not be written to.

        On a cluster machine that lacks the store of decoded images, the images of the source are decoded into a new
        store.

        Raises:
            DataError: This machine lacks the store, and the images on this machine differ from those of the study.
        """
        if not all(images.file.available for images, _ in self.arrays.values() if isinstance(images, SharedImages)):
            return self._loaded().to(device)
        train, validation, unlabeled = (
            Split(
                images if isinstance(images, SharedImages) else torch.from_numpy(images), torch.from_numpy(labels)
            ).to(device)
            for images, labels in (self.arrays[part] for part in ("train", "validation", "unlabeled"))
        )
        about = (self.class_names, self.identity, self.warnings, self.own_validation)
        return DataSplits(train, validation, unlabeled, *about)

    def _loaded(self) -> DataSplits:
        """Returns the data, loaded from the source on this machine."""
        data = load_data(self.source, self.studies)
        if data.identity != self.identity:
            raise DataError(
                f"data: the images on {socket.gethostname()} must be those of the study ({self.identity}), got "
                f"{data.identity}. Copy them, or set data.path to a folder that all machines share."
            )
        return data


@dataclass(frozen=True)
class SharedInputs:
    """Inputs that all trials share, stored once in Ray's object store.

    Attributes:
        study: The settings.
        folder: The folder of the study.
        data: Training, validation and unlabeled images.
        teacher_logits: The ensemble and a cache of its logits, which is filled before the first trial.
        curve: Calibrated NLL on the validation images in nats, for ensembles of 1, 2, ..., M teachers.
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
            curve: Calibrated NLL on the validation images in nats, for ensembles of 1, 2, ..., M teachers.
        """
        cache = TeacherLogitCache(ensemble)
        _precompute_teacher_logits(study, data, cache)
        ensemble.cpu()
        shared = SharedData.of(data, study.base_config.data, folder.path.parent)
        return cls(study, StudyDirectory(folder.path.resolve()), shared, cache, curve)

    def unpack(self, device: torch.device) -> tuple[DataSplits, TeacherEnsemble]:
        """Returns the data and the ensemble, moved to a device."""
        return self.data.to(device), self.teacher_logits.ensemble.to(device)


def _precompute_teacher_logits(study: StudyConfig, data: DataSplits, cache: TeacherLogitCache) -> None:
    """Fills the cache with the logits that representative trials use; other trials compute missing logits themselves.

    The logits are computed on the device on which trials run, because the last digits can differ between devices.
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
    """Returns the device on which trials run."""
    return torch.device("cuda" if study.resources.gpus else "cpu")
