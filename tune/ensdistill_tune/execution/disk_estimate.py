"""Estimate of the disk space that a study needs, from the sizes of its networks."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.data.shared_images import SharedImages
from ensdistill.data.stored_sets import size_on_disk
from ensdistill.models import build
from ensdistill.runtime.formatting import memory_size
from ensdistill.training.new_student import new_student
from ensdistill.training.teachers import teacher_config
from ensdistill_tune.study.study_config import StudyConfig

MOMENTS = {"sgd": 1}  # number of optimizer tensors per parameter; 2 for optimizers that are not listed
# number of extra copies of the weights; averaging methods that are not listed keep one copy per epoch in the window
COPIES = {"none": 0, "ema": 1, "swa": 1}


MIB = 2**20


@dataclass(frozen=True)
class DiskEstimate:
    """Disk space that a study requires, in bytes, if no trial is stopped early.

    Attributes:
        images: Store of decoded images, which all studies in a folder share; 0 if the images are in memory.
        teachers: Teachers that are not in the store yet.
        students: Students that remain on disk after trials and replicates have completed.
        checkpoints: Checkpoints of all trials that run in parallel.
        free: Free space on the disk that contains the studies folder.
    """

    images: int
    teachers: int
    students: int
    checkpoints: int
    free: int

    @property
    def total(self) -> int:
        """Total size of images, teachers, students and checkpoints."""
        return self.images + self.teachers + self.students + self.checkpoints

    def in_words(self) -> str:
        """Returns the estimate as one line."""
        names = {"images": "decoded images", "checkpoints": "checkpoints of running trials"}
        parts = [f"{names.get(name, name)} {memory_size(size)}" for name, size in self._parts() if size >= MIB]
        size = f"at most about {memory_size(self.total)} ({', '.join(parts)})" if parts else "a few MiB"
        free = "is free" if self.free >= self.total else "is free, which is not enough"
        return f"disk: {size}; {memory_size(self.free)} {free}"

    def _parts(self) -> Iterator[tuple[str, int]]:
        for name in ("images", "teachers", "students", "checkpoints"):
            yield name, getattr(self, name)


def disk_estimate(
    study: StudyConfig, data: DataSplits, studies: Path, teachers_there: int, parallel: int
) -> DiskEstimate:
    """Returns the disk space that a study needs, assuming that every student is as large as the largest one.

    Args:
        study: The settings.
        data: Splits of the study.
        studies: The folder that contains all studies.
        teachers_there: Number of teachers in the store.
        parallel: Number of trials that run in parallel.
    """
    base = study.base_config
    own = [teacher_config(base, m) for m in range(base.teachers.count)]
    networks = [size_of(build(one.model, data, one.seed)) for one in own]
    sizes = [_student_sizes(config, data) for config in study.distinct_architectures]
    images = data.train.images
    folder = next(path for path in (studies, *studies.resolve().parents) if path.is_dir())
    return DiskEstimate(
        images=size_on_disk(images.file.folder) if isinstance(images, SharedImages) else 0,
        teachers=sum(sorted(networks)[: len(networks) - teachers_there]),
        students=max(student for student, _ in sizes) * _students_kept(study),
        checkpoints=max(checkpoint for _, checkpoint in sizes) * max(1, parallel),
        free=shutil.disk_usage(folder).free,
    )


def size_of(network: nn.Module) -> int:
    """Returns the total size of a network's parameters and buffers in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def _students_kept(study: StudyConfig) -> int:
    keep, trials = study.resources.num_to_keep, study.num_trials
    kept = trials if keep is None else min(trials, keep + len(study.baselines))
    return kept + study.expected_replicates


def _student_sizes(config: Config, data: DataSplits) -> tuple[int, int]:
    """Returns the size of the exported student and the size of a checkpoint, both in bytes."""
    student = new_student(config, data)
    moments = MOMENTS.get(config.training.optimizer.kind, 2)
    window = getattr(config.averaging, "window", getattr(config.averaging, "max_candidates", 1))
    copies = COPIES.get(config.averaging.kind, window)
    return size_of(student.merged()), size_of(student) * (1 + moments + copies)
