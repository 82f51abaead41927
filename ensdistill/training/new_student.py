"""Construction of a new student, and checks that data and network are suitable for its training."""

import torch

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.methods.students.base import Student
from ensdistill.models import build
from ensdistill.runtime.randomness import derive_seed, temporary_seed
from ensdistill.training.piece_checks import called, check_pieces


def new_student(config: Config, data: DataSplits) -> Student:
    """Returns a new student on the device of the data; equal seeds give equal weights.

    Raises:
        ConfigError: The model or the student is incompatible with the images.
    """
    device = data.train.images.device
    network = build(config.model, data, config.seed, config.loss.head())
    with temporary_seed(derive_seed(config.seed, "student"), torch.device("cpu")):
        student: Student = called("student", config.student, network)
    if not isinstance(student, Student):
        rule = f"{config.student.kind} must return a Student, not a {type(student).__name__}"
        raise ConfigError(ConfigIssue(("student",), rule, hint="inherit from ensdistill.methods.students.base.Student"))
    return student.to(device)


def check_data(config: Config, data: DataSplits) -> None:
    """Checks that the data have enough images for the training of the student.

    Raises:
        ConfigError: There are fewer training images than in a batch, or no unlabeled images.
    """
    _check_batch("training", config.training.batch_size, data)
    if config.training.unlabeled_batch_size and not len(data.unlabeled):
        raise ConfigError(
            "training.unlabeled_batch_size: there are no unlabeled images; lower data.train_size or set this to 0"
        )


def _check_batch(name: str, batch_size: int, data: DataSplits) -> None:
    """Raises ConfigError if a batch has more images than the training part."""
    if batch_size > len(data.train):
        rule = f"{batch_size} is more than the {len(data.train)} training images"
        raise ConfigError(f"{name}.batch_size: {rule}; set it to {len(data.train)} or less")


def check_student(config: Config, data: DataSplits) -> None:
    """Checks that a student can be built and trained with these data, without training it.

    Raises:
        ConfigError: There are too few images, the network cannot be this kind of student, or a piece violates a rule.
    """
    check_data(config, data)
    if config.teachers.count:
        _check_batch("teachers.training", config.teachers.training.batch_size, data)
    student = new_student(config, data).train()
    images, _ = data.train[slice(0, min(2, config.training.batch_size + config.training.unlabeled_batch_size))]
    try:
        with temporary_seed(0, images.device), torch.no_grad():
            student(images)
    except ValueError as error:  # raised by BatchNorm for a single value per channel, which has no variance
        raise ConfigError(
            f"training.batch_size: {config.training.batch_size} is too small for this network ({error}); increase it"
        ) from error
    check_pieces(config, data, student)
