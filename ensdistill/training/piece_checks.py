"""Checks user-defined pieces by calling each of them with a few images, before teachers are trained.

Built-in pieces are not checked, because the contracts in `ensdistill.testing` cover them. A piece that passes can still
fail during training. In that case, the error message is still a single line, but the training time is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ensdistill.config import Config
from ensdistill.data import DataSplits, ImageAugmentation
from ensdistill.errors import ConfigError, ConfigIssue, EnsdistillError
from ensdistill.evaluation.own_metrics import check_metrics
from ensdistill.methods.averaging import Averaging, WeightAverage
from ensdistill.methods.losses import Loss
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.optimizers import OptimizerPiece
from ensdistill.methods.parameter_groups import parameter_groups
from ensdistill.methods.students.base import Student
from ensdistill.runtime.boundary import cause_of
from ensdistill.runtime.modes import evaluating
from ensdistill.runtime.randomness import RandomStreams, temporary_seed
from ensdistill.settings.calls import misfit
from ensdistill.settings.pieces import Piece, is_own

T = TypeVar("T")
TEACHERS = 2  # number of teachers in a check; each is a copy of the student


def called(section: str, piece: Piece, *arguments: Any) -> Any:
    """Calls a piece; for a user-defined piece, checks the signature first and converts exceptions to ConfigError.

    Args:
        section: Name of the setting, such as `loss`.
        piece: The piece.
        *arguments: Arguments of the call.

    Returns:
        The result of the call.

    Raises:
        ConfigError: The piece does not accept these arguments, or raises an exception.
    """
    if not is_own(piece):
        return piece(*arguments)  # type: ignore[operator]
    if rule := misfit(piece, *arguments):
        raise _issue(section, rule)
    return _run(section, piece, lambda: piece(*arguments))  # type: ignore[operator]


def check_pieces(config: Config, data: DataSplits, student: Student) -> None:
    """Checks the user-defined pieces of a run.

    Args:
        config: The settings.
        data: The images.
        student: A student built with these settings, in training mode.

    Raises:
        ConfigError: A piece violates a rule; the message states the piece and the rule.
    """
    classes = len(data.class_names)
    check_metrics(config.metrics, classes)
    optimizer = config.training.optimizer
    if is_own(optimizer):
        _check_optimizer(optimizer, student)
    if not any(map(is_own, _pieces_of(config))):
        return
    with temporary_seed(0, data.train.images.device):
        images, labels = data.train[slice(0, min(4, len(data.train)))]
        if is_own(config.training.augmentation):
            _check_augmentation(config.training.augmentation, data.train.images[: len(images)])
        if is_own(config.student):
            _check_student(config.student.kind, student, images, classes)
        if is_own(config.perturbation):
            _check_perturbation(config, images, student, classes)
        if is_own(config.loss):
            _check_loss(config.loss, student, labels, classes)
        if is_own(config.averaging):
            _check_average(config.averaging, student)


def _pieces_of(config: Config) -> tuple[Piece, ...]:
    """Returns the pieces that a training step calls."""
    return (config.training.augmentation, config.student, config.perturbation, config.loss, config.averaging)


def _check_augmentation(piece: ImageAugmentation, images: Tensor) -> None:
    """Checks that the augmented images (B,C,H,W) are valid and that the original images are unchanged."""
    section, given = "training.augmentation", images.clone()
    generator = RandomStreams.of(0, "check", 1, images.device).device
    augmented = called(section, piece, given, generator)
    _check_tensor(section, f"{piece.kind}: images", augmented, tuple(images.shape))
    if augmented.dtype != torch.uint8 or augmented.device != images.device:
        found = f"{augmented.dtype} on {augmented.device}"
        raise _issue(section, f"{piece.kind}: images must be torch.uint8 on {images.device}, not {found}")
    if not torch.equal(images, given):
        raise _issue(section, f"{piece.kind}: must not write to its input images")


def _check_student(kind: str, student: Any, images: Tensor, classes: int) -> None:
    """Checks the logits of a student and of its merged network."""
    expected = (len(student), len(images), classes)
    _check_tensor("student", f"{kind}: logits of the student", student(images), expected)
    merged = student.merged()
    if not isinstance(merged, nn.Module):
        raise _issue("student", f"{kind}: merged() must return a torch.nn.Module, not a {type(merged).__name__}")
    with evaluating(merged):
        _check_tensor("student", f"{kind}: logits of merged()", merged(images), (len(images), classes))


def _check_perturbation(config: Config, images: Tensor, student: Student, classes: int) -> None:
    """Checks that the perturbed images are valid and that the original images are unchanged."""
    piece, before = config.perturbation, images.clone()
    teachers = TeacherEnsemble([student.merged() for _ in range(TEACHERS)], classes, "stand-ins")
    streams = RandomStreams.of(0, "check", 1, images.device)
    shown = called("perturbation", piece, images, teachers, student, streams)
    _check_tensor("perturbation", f"{piece.kind}: images", shown, tuple(images.shape))
    if shown.min() < 0 or shown.max() > 1:
        low, high = float(shown.min()), float(shown.max())
        raise _issue("perturbation", f"{piece.kind}: image values must be in [0, 1], not in [{low:.3g}, {high:.3g}]")
    if not torch.equal(images, before):
        raise _issue("perturbation", f"{piece.kind}: must not write to its input images")


def _check_loss(piece: Loss, student: Student, labels: Tensor, classes: int) -> None:
    """Checks that the loss is a finite scalar with a finite gradient."""
    shape = (len(student), len(labels), classes)
    logits = torch.randn(shape, device=labels.device, requires_grad=True)
    teachers = torch.randn(TEACHERS, *shape[1:], device=labels.device)
    loss = called("loss", piece, logits, teachers, labels, logits)
    _check_tensor("loss", f"{piece.kind}: loss", loss, ())
    if not loss.requires_grad:
        raise _issue("loss", f"{piece.kind}: the loss must depend on the logits of the student")
    _run("loss", piece, loss.backward)
    if logits.grad is None or not logits.grad.isfinite().all():
        raise _issue("loss", f"{piece.kind}: the gradient of the loss must be finite")


def _check_optimizer(piece: OptimizerPiece, student: Student) -> None:
    """Checks that an optimizer accepts the parameter groups of a student."""
    made = called("training.optimizer", piece, parameter_groups(student, piece))
    if not isinstance(made, torch.optim.Optimizer):
        rule = f"{piece.kind} must return a torch.optim.Optimizer, not a {type(made).__name__}"
        raise _issue("training.optimizer", rule)


def _check_average(piece: Averaging, student: Student) -> None:
    """Checks that all methods of a weight average can be called, and that `averaged` returns a student."""
    average: WeightAverage = called("averaging", piece, student)

    def some_steps() -> Any:
        average.update(student, 1.0)
        average.epoch_ended(student, 1.0, lambda _: {"accuracy": 0.5, "nll": 1.0})
        average.load_state_dict(average.state_dict())
        return average.averaged(student)

    averaged = _run("averaging", piece, some_steps)
    if not isinstance(averaged, Student):
        rule = f"{piece.kind}: averaged() must return a Student, not a {type(averaged).__name__}"
        raise _issue("averaging", rule)


def _check_tensor(section: str, what: str, found: Any, shape: tuple[int, ...]) -> None:
    """Raises ConfigError unless `found` is a finite tensor of this shape."""
    if not isinstance(found, Tensor):
        raise _issue(section, f"{what} must be a tensor, not a {type(found).__name__}")
    if tuple(found.shape) != shape:
        raise _issue(section, f"{what} must have the shape {shape}, not {tuple(found.shape)}")
    if not found.isfinite().all():
        raise _issue(section, f"{what} must be finite, not NaN or infinite")


def _run(section: str, piece: Piece, work: Callable[[], T]) -> T:
    """Returns the result of `work`; converts its exceptions to ConfigError."""
    try:
        return work()
    except EnsdistillError:
        raise
    except Exception as error:  # user code can raise any exception
        raise _issue(section, f"{piece.kind} fails on a small batch of images ({cause_of(error)})") from error


def _issue(section: str, rule: str) -> ConfigError:
    """Returns the error for a piece that violates a rule."""
    return ConfigError(ConfigIssue(tuple(section.split(".")), rule, hint="fix this piece"))
