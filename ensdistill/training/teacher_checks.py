"""What must hold of teachers before anything is distilled from them: their outputs on real images."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensdistill.data import DataSplits, Split
from ensdistill.errors import ConfigIssue, DataError, EnsdistillError, teacher_name
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models.probe import are_probabilities, one_line_error
from ensdistill.runtime.modes import evaluating

IMAGES = 256  # of each part, evenly spread: folders hold their images by class
ABSURD = 100.0  # nats; the NLL of a network that says p(label) = e^-100 in the mean


def check_teachers(networks: Sequence[nn.Module], names: Sequence[str], data: DataSplits) -> tuple[ConfigIssue, ...]:
    """Returns what seems wrong with the outputs of teachers on some training and validation images.

    Args:
        networks: Each maps images (B,C,H,W) to logits (B,classes); in evaluation mode.
        names: What messages call them.
        data: The images.

    Raises:
        DataError: Outputs that are no numbers, probabilities in place of logits, or an absurd NLL.
    """
    parts = [_some(part) for part in (data.train, data.validation) if len(part)]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    classes, found = len(data.class_names), []
    for network, name in zip(networks, names, strict=True):
        found.append(_check(_tried(network, images, name, classes), labels, name))
    return tuple(issue for issue in found if issue)


def check_given(ensemble: TeacherEnsemble, data: DataSplits) -> None:
    """Checks the teachers that a program gives; warns in the way of Python's libraries. Raises as `check_teachers`."""
    if ensemble.given and len(ensemble):
        for issue in check_teachers(list(ensemble.networks), list(map(teacher_name, range(len(ensemble)))), data):
            warnings.warn(str(issue), stacklevel=4)


def check_numbers(networks: Sequence[nn.Module], split: Split, size: int = 1000) -> None:
    """Raises DataError if outputs of a teacher on a split are no numbers: a diverged student is not to blame then."""
    for m, network in enumerate(networks):
        for start in range(0, len(split), size):
            if not _are_numbers(_outputs(network, split[slice(start, start + size)][0])):
                raise DataError(
                    f"{teacher_name(m)}: its outputs for some training images are not numbers (NaN or infinite); "
                    "train it again, or leave it out"
                )


def _check(outputs: Tensor, labels: Tensor, name: str) -> ConfigIssue | None:
    if not _are_numbers(outputs):
        bad = int((~_rows_of_numbers(outputs)).sum())
        raise DataError(
            f"{name}: its outputs for {bad} of {len(outputs)} images are not numbers (NaN or infinite); train it "
            "again, or leave it out"
        )
    if are_probabilities(outputs):
        raise DataError(
            f"{name}: its outputs are probabilities (from 0 to 1, with the sum 1), not logits; leave out its softmax"
        )
    nll = float(nn.functional.cross_entropy(outputs.double(), labels, reduction="none").clamp(max=1e6).mean())
    if nll > ABSURD:
        raise DataError(
            f"{name}: its NLL on real images is {nll:,.0f} nats; check mean and std of a file, or train it again at a "
            "lower teachers.training.optimizer.lr"
        )
    if len(outputs) > 1 and bool(((outputs >= 0) & (outputs <= 1)).all()):
        rule = f"outputs of {name} are all from 0 to 1, as those of a sigmoid are, and are taken for logits"
        return ConfigIssue(("teachers",), rule, hint="let the network return what is before its last activation")
    return None


def _tried(network: nn.Module, images: Tensor, name: str, classes: int) -> Tensor:
    """Logits (N,classes). Raises DataError if the network fails, or returns something else."""
    shape = "x".join(map(str, images.shape[1:]))
    try:
        logits = _outputs(network, images)
    except EnsdistillError:
        raise
    except Exception as error:  # networks may do what they like
        raise DataError(
            f"{name}: fails on images of {shape} ({one_line_error(error)}); give a network for images of this shape "
            "with values in [0,1]"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if found != (len(images), classes):
        raise DataError(
            f"{name}: returns {found} for {len(images)} images, not logits {(len(images), classes)}; give a network "
            f"of these {classes} classes"
        )
    return logits


def _some(split: Split) -> tuple[Tensor, Tensor]:
    index = torch.linspace(0, len(split) - 1, min(IMAGES, len(split))).round().long()
    return split[index.to(split.images.device)]


def _outputs(network: nn.Module, images: Tensor) -> Tensor:
    with evaluating(network), torch.no_grad():
        logits: Tensor = network(images)
    return logits


def _are_numbers(outputs: Tensor) -> bool:
    return bool(_rows_of_numbers(outputs).all())


def _rows_of_numbers(outputs: Tensor) -> Tensor:
    """Of which images there is a probability of each class: a class may be ruled out by -inf, but not all."""
    return ~outputs.log_softmax(-1).isnan().any(-1)
