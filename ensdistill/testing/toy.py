"""Small images, networks and students for the contract suites."""

from typing import Any

import torch

from ensdistill.config import Config
from ensdistill.data import DataSplits, Split
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.students.base import Student
from ensdistill.models import Convnet, build
from ensdistill.runtime.randomness import RandomStreams, temporary_seed

CLASSES = 5
MODEL = Convnet(width=4, blocks=2)


def toy_data(images: int = 24) -> DataSplits:
    """Returns random 1x8x8 images of five classes, split into training images and ten validation images.

    Args:
        images: Number of training images.
    """
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        pixels = torch.randint(256, (count, 1, 8, 8), generator=generator).to(torch.uint8)
        return Split(pixels, torch.arange(count) % CLASSES)

    return DataSplits(split(images), split(10), split(0), tuple("abcde"), "toy")


def toy_ensemble(data: DataSplits, teachers: int = 2) -> TeacherEnsemble:
    """Returns an ensemble of untrained teachers."""
    return TeacherEnsemble([build(MODEL, data, 50 + m) for m in range(teachers)], CLASSES, "toy")


def toy_student(settings: Any, data: DataSplits, seed: int = 0, spread: bool = True) -> Student:
    """Returns a student in training mode.

    Args:
        settings: Settings of the student.
        data: The images.
        seed: Seed of the weights.
        spread: Whether to add noise to all parameters, so that the subnetworks differ.
    """
    with temporary_seed(seed, torch.device("cpu")):
        student: Student = settings(build(MODEL, data, seed))
    if spread:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in student.parameters():
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return student.train()


def toy_config(**pieces: Any) -> Config:
    """Returns settings that contain the toy network and the given pieces."""
    return Config().model_copy(update={"model": MODEL, **pieces})


def streams(seed: int = 0) -> RandomStreams:
    """Returns random streams for a perturbation."""
    return RandomStreams.of(seed, "contract", 1, torch.device("cpu"))
