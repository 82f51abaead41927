"""Small replacements for real networks, data and settings in the tests of the core."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensdistill.config import Config, load_config
from ensdistill.data import DataSplits, Split
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.students.base import Student
from ensdistill.models import build
from ensdistill.runtime.randomness import RandomStreams

TINY = (
    "data.train_size=40",
    "data.val_size=60",
    "data.test_size=10",
    "model.width=4",
    "model.blocks=2",
    "teachers.count=2",
    "teachers.model.width=2",
    "teachers.model.blocks=1",
    "teachers.training.epochs=1",
    "teachers.training.batch_size=20",
    "training.epochs=3",
    "training.batch_size=10",
)
LATENTBE_EMA = (
    "student.subnetworks=2",
    "averaging.kind=ema",
    "averaging.decay=0.9",
    "averaging.refresh_batchnorm=true",
)


def tiny_config(*overrides: str, preset: str = "kd") -> Config:
    return load_config(preset, [*TINY, *overrides])


def random_ensemble(data: DataSplits, count: int = 2) -> TeacherEnsemble:
    networks = [build(tiny_config().teachers.model, data, 100 + m) for m in range(count)]
    return TeacherEnsemble(networks, len(data.class_names), "random")


def streams(seed: int = 0) -> RandomStreams:
    return RandomStreams.of(seed, "test", 1, torch.device("cpu"))


class LinearMembers(Student):
    """Computes logits A_m x: one matrix per member, no bias; x is flattened."""

    def __init__(self, *matrices: Tensor) -> None:
        super().__init__()
        self.matrices = nn.ParameterList([nn.Parameter(matrix) for matrix in matrices])

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        chosen = range(len(self)) if members is None else members
        return torch.stack([x.flatten(1) @ self.matrices[m].T for m in chosen])

    def __len__(self) -> int:
        return len(self.matrices)


def numbered_split(count: int, classes: int) -> Split:
    """Returns images 1x1x2 whose two pixels encode their index; the label is the index modulo the number of classes."""
    number = torch.arange(count)
    pixels = torch.stack([number // 256, number % 256], -1).to(torch.uint8)
    return Split(pixels.view(count, 1, 1, 2), number % classes)


def numbers_of(split: Split) -> list[int]:
    """Returns the indices encoded in the images of `numbered_split`."""
    pixels = split.images.long().flatten(1)
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()
