"""Builds a new student, and checks that the data and the network are suitable for training."""

import warnings

import torch

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError, ConfigIssue, SettingWarning
from ensdistill.methods.class_weights import weights_of_classes
from ensdistill.methods.losses.losses import LabelTerm, label_term
from ensdistill.methods.recipe import Training
from ensdistill.methods.students.base import Student
from ensdistill.models import build
from ensdistill.models.fine_tuning import prepare_training
from ensdistill.runtime.randomness import derive_seed, temporary_seed
from ensdistill.training.piece_checks import called, check_pieces


def new_student(config: Config, data: DataSplits, start: bool = False) -> Student:
    """Returns a new student on the device of the data; equal seeds give equal weights.

    Args:
        config: The settings.
        data: The images.
        start: Whether the student will be trained; if so, it starts from `model.weights`, and the parts in
            `model.freeze` are frozen.

    Raises:
        ConfigError: The model or the student is incompatible with the images.
        DataError: The weights file is missing or damaged.
    """
    device = data.train.images.device
    network = build(config.model, data, config.seed, config.loss.head())
    if start:
        prepare_training(network, config.model, len(data.class_names))
    with temporary_seed(derive_seed(config.seed, "student"), torch.device("cpu")):
        student: Student = called("student", config.student, network)
    if not isinstance(student, Student):
        rule = f"{config.student.kind} must return a Student, not a {type(student).__name__}"
        raise ConfigError(ConfigIssue(("student",), rule, hint="inherit from ensdistill.methods.students.base.Student"))
    return student.to(device)


def check_data(config: Config, data: DataSplits) -> None:
    """Checks that the data match the student's training settings: batch size, class weights and unlabeled images.

    Raises:
        ConfigError: A batch is larger than the training split; the number of class weights differs from the number of
            classes; or batches require unlabeled images, but there are none.
    """
    _check_batch("training", config.training.batch_size, data)
    _check_class_weights("training", config.training, data)
    if config.training.unlabeled_batch_size and not len(data.unlabeled):
        raise ConfigError(
            "training.unlabeled_batch_size: there are no unlabeled images; lower data.train_size, or set this to 0"
        )


def _check_batch(name: str, batch_size: int, data: DataSplits) -> None:
    """Raises ConfigError if a batch has more images than the training split."""
    if batch_size > len(data.train):
        rule = f"{batch_size} is more than the {len(data.train)} training images"
        raise ConfigError(f"{name}.batch_size: {rule}; set it to {len(data.train)} or less")


def _check_class_weights(name: str, training: Training, data: DataSplits) -> None:
    """Raises ConfigError if class weights are given, but not exactly one per class."""
    try:
        weights_of_classes(training.class_weights, data.train.labels, data.class_names)
    except ConfigError as error:
        raise ConfigError([issue.below(*name.split(".")) for issue in error.issues]) from None


def warn_of_unused(config: Config, data: DataSplits) -> None:
    """Issues a warning for each training setting that has no effect with this loss or on this device."""
    training, device = config.training, data.train.images.device
    found = []
    if training.precision == "float16" and not training.scales_gradients(device):
        rule = f"float16 requires a GPU; training on {device} uses float32"
        found.append(ConfigIssue(("training", "precision"), rule))
    names = [name for name in ("label_smoothing", "class_weights") if name in training.model_dump()]
    if names and not _has_label_term(config, len(data.class_names)):
        rule = f"has no effect, because the loss {config.loss.kind} has no label term with its current weights"
        found += [ConfigIssue(("training", name), rule) for name in names]
    for issue in found:
        warnings.warn(SettingWarning(issue), stacklevel=2)


def _has_label_term(config: Config, classes: int) -> bool:
    """Returns whether label smoothing changes the loss for random logits."""
    generator = torch.Generator().manual_seed(0)
    student, teachers = (torch.randn(2, 4, classes, generator=generator) for _ in range(2))
    labels = torch.arange(4) % classes
    values = []
    for smoothing in (0.0, 0.5):
        with label_term(LabelTerm(smoothing)):
            values.append(config.loss(student.requires_grad_(), teachers, labels, student))
    return not torch.equal(*values)


def check_student(config: Config, data: DataSplits) -> None:
    """Checks that a student can be built and trained with these data, without training it.

    Raises:
        ConfigError: There are too few images, the network cannot be used in this kind of student, or a piece violates a
            rule.
    """
    check_data(config, data)
    if config.teachers.count:
        _check_batch("teachers.training", config.teachers.training.batch_size, data)
        _check_class_weights("teachers.training", config.teachers.training, data)
    student = new_student(config, data, start=True).train()
    images, _ = data.train[slice(0, min(2, config.training.batch_size + config.training.unlabeled_batch_size))]
    try:
        with temporary_seed(0, images.device), torch.no_grad():
            student(images)
    except ValueError as error:  # raised by BatchNorm for a single value per channel, which has no variance
        raise ConfigError(
            f"training.batch_size: {config.training.batch_size} is too small for this network ({error}); increase it"
        ) from error
    check_pieces(config, data, student)
    config.training.check_optimizer(student)
    warn_of_unused(config, data)
