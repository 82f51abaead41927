"""Checks the outputs of teachers on real images before distillation."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensdistill.data import DataSplits, Split
from ensdistill.errors import ConfigIssue, DataError, EnsdistillError, teacher_name
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models.probe import are_probabilities, one_line_error
from ensdistill.runtime.modes import evaluating

IMAGES = 256  # number of images to check per split; evenly spaced, because image folders are sorted by class
ABSURD = 100.0  # nats; above this NLL, the geometric mean of p(label) is below e^-100


def check_teachers(networks: Sequence[nn.Module], names: Sequence[str], data: DataSplits) -> tuple[ConfigIssue, ...]:
    """Checks teacher outputs on some training and validation images, and returns the issues that were found.

    Args:
        networks: Networks in evaluation mode; each maps images (B,C,H,W) in [0,1] to logits (B,classes).
        names: Names of the networks, used in error messages.
        data: The images.

    Raises:
        DataError: Outputs are NaN, infinite, or probabilities instead of logits; or the NLL is implausibly high.
    """
    parts = [_some(part) for part in (data.train, data.validation) if len(part)]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    classes, found = len(data.class_names), []
    for network, name in zip(networks, names, strict=True):
        found.append(_check(_tried(network, images, name, classes), labels, name))
    return tuple(issue for issue in found if issue)


def check_given(ensemble: TeacherEnsemble, data: DataSplits) -> None:
    """Checks teachers that the caller supplied as networks, and emits a Python warning for each issue.

    Raises:
        DataError: As in `check_teachers`.
    """
    if ensemble.given and len(ensemble):
        for issue in check_teachers(list(ensemble.networks), list(map(teacher_name, range(len(ensemble)))), data):
            warnings.warn(str(issue), stacklevel=4)


def check_numbers(networks: Sequence[nn.Module], split: Split, size: int = 1000) -> None:
    """Checks that no teacher output on a split is NaN or infinite; called after a student has diverged.

    Args:
        networks: Networks in evaluation mode; each maps images (B,C,H,W) in [0,1] to logits (B,classes).
        split: The images.
        size: Images per batch.

    Raises:
        DataError: An output of a teacher is NaN or infinite.
    """
    for m, network in enumerate(networks):
        for start in range(0, len(split), size):
            if not _are_numbers(_outputs(network, split[slice(start, start + size)][0])):
                raise DataError(
                    f"{teacher_name(m)}: its outputs for some training images are NaN or infinite; train it again, or "
                    "remove it"
                )


def _check(outputs: Tensor, labels: Tensor, name: str) -> ConfigIssue | None:
    """Returns an issue if logits (N,classes) look suspicious, otherwise None; raises DataError if they are unusable."""
    if not _are_numbers(outputs):
        bad = int((~_rows_of_numbers(outputs)).sum())
        raise DataError(
            f"{name}: its outputs for {bad} of {len(outputs)} images are NaN or infinite; train it again, or remove it"
        )
    if are_probabilities(outputs):
        raise DataError(
            f"{name}: its outputs are probabilities (from 0 to 1, with sum 1), not logits; remove its softmax"
        )
    nll = float(nn.functional.cross_entropy(outputs.double(), labels, reduction="none").clamp(max=1e6).mean())
    if nll > ABSURD:
        raise DataError(
            f"{name}: its NLL on real images must be at most {ABSURD:.0f} nats, but is {nll:,.0f}; for a "
            "teacher from a file, check mean and std; otherwise, train it again with a lower "
            "teachers.training.optimizer.lr"
        )
    if len(outputs) > 1 and bool(((outputs >= 0) & (outputs <= 1)).all()):
        rule = f"outputs of {name} are all between 0 and 1, as after a sigmoid, but are used as logits"
        return ConfigIssue(("teachers",), rule, hint="remove the last activation of the network")
    return None


def _tried(network: nn.Module, images: Tensor, name: str, classes: int) -> Tensor:
    """Returns logits (N,classes); raises DataError if the network fails or its outputs have a different shape."""
    shape = "x".join(map(str, images.shape[1:]))
    try:
        logits = _outputs(network, images)
    except EnsdistillError:
        raise
    except Exception as error:  # a user-supplied network can raise any exception
        raise DataError(
            f"{name} fails on images of shape {shape} ({one_line_error(error)}); provide a network for images of this "
            "shape with values in [0,1]"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if found != (len(images), classes):
        raise DataError(
            f"{name} returns {found} for {len(images)} images, not logits {(len(images), classes)}; provide a "
            f"network for these {classes} classes"
        )
    return logits


def _some(split: Split) -> tuple[Tensor, Tensor]:
    """Returns at most `IMAGES` evenly spaced images of a split, and their labels."""
    index = torch.linspace(0, len(split) - 1, min(IMAGES, len(split))).round().long()
    return split[index.to(split.images.device)]


def _outputs(network: nn.Module, images: Tensor) -> Tensor:
    """Returns the outputs of a network in evaluation mode, without gradients."""
    with evaluating(network), torch.no_grad():
        logits: Tensor = network(images)
    return logits


def _are_numbers(outputs: Tensor) -> bool:
    """Returns whether outputs (N,classes) can be converted to probabilities for all images."""
    return bool(_rows_of_numbers(outputs).all())


def _rows_of_numbers(outputs: Tensor) -> Tensor:
    """Returns the mask (N,) of images with a valid softmax; some logits of an image may be -inf, but not all."""
    return ~outputs.log_softmax(-1).isnan().any(-1)
