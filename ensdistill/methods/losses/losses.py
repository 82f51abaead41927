"""Elementary loss terms in log space, shared by all distillation losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ensdistill.runtime.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


UNLABELED = -1
LARGEST = 1e9  # upper bound on losses, in nats; infinite losses would give NaN weights


@dataclass(frozen=True)
class LabelTerm:
    """Settings of the label term, which are part of the training recipe and not of the loss.

    Attributes:
        smoothing: Probability that is distributed equally over all classes in the targets.
        class_weights: Weight of each class, (c,); None for equal weights.
    """

    smoothing: float = 0.0
    class_weights: Tensor | None = None


PLAIN = LabelTerm()
_LABEL_TERM: ContextVar[LabelTerm] = ContextVar("label_term", default=PLAIN)


@contextmanager
def label_term(settings: LabelTerm) -> Iterator[None]:
    """Applies these settings to every call of `label_cross_entropy` inside the block, regardless of the loss."""
    token = _LABEL_TERM.set(settings)
    try:
        yield
    finally:
        _LABEL_TERM.reset(token)


def label_cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy with the labels, averaged over subnetworks and labeled images.

    Label smoothing and class weights are applied as in `torch.nn.functional.cross_entropy`.

    Args:
        student: Logits (K,B,c).
        labels: Class indices (B,), -1 for an unlabeled image.

    Returns:
        A scalar in nats; zero if the batch has no labeled image.

    References:
        Szegedy et al. 2016, section 7 (label smoothing).
    """
    term = _LABEL_TERM.get()
    tiled = labels.expand(student.shape[:2]).flatten()
    options: dict[str, Any] = {"weight": term.class_weights, "label_smoothing": term.smoothing, "reduction": "sum"}
    total: Tensor = F.cross_entropy(student.flatten(0, 1), tiled, ignore_index=UNLABELED, **options)
    labeled = tiled != UNLABELED
    if term.class_weights is None:
        return total / labeled.sum().clamp(min=1)
    weights = term.class_weights[tiled.clamp(min=0)] * labeled
    return total / weights.sum().clamp(min=1e-12)


def weighted_sum(*terms: tuple[float, Callable[[], Tensor]]) -> Tensor:
    """Returns sum_i w_i term_i; terms with weight 0 are skipped, so they contribute nothing even if they are infinite.

    Args:
        *terms: Pairs of a weight and a function that returns a scalar.

    Returns:
        A scalar. If all weights are 0, it is the first term times 0, so that the result still has a gradient.
    """
    counted = [term() if weight == 1 else weight * term() for weight, term in terms if weight]
    return sum(counted[1:], start=counted[0]) if counted else 0 * terms[0][1]()


def kl_divergence(targets: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(targets || softmax(student / T)), averaged over all axes except the class axis.

    Args:
        targets: Probabilities at temperature T, (...,B,c).
        student: Logits (...,B,c), broadcast against the targets.
        temperature: Temperature T, above 0.

    Returns:
        A scalar in nats per example, multiplied by T^2.

    References:
        Hinton et al. 2015, section 2.
    """
    return kl_per_example(targets, student, temperature).mean()


def kl_per_example(targets: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(targets || softmax(student / T)) for each example, (...,B); see `kl_divergence`."""
    return temperature**2 * kl_divergence_from_log(targets, (student / temperature).log_softmax(-1))


def kl_divergence_from_log(p: Tensor, log_q: Tensor) -> Tensor:
    """Returns KL(p || q) in nats, with shape (...).

    Args:
        p: Probabilities (...,c).
        log_q: Log-probabilities (...,c).
    """
    return (p * (safe_log(p) - log_q)).sum(-1)


def safe_log(probabilities: Tensor) -> Tensor:
    """Returns the natural logarithm of probabilities of any shape, clamped below at ln 1e-30."""
    return probabilities.clamp(min=1e-30).log()


def standardized(logits: Tensor) -> Tensor:
    """Returns the logits, standardized for each image to mean 0 and standard deviation 1.

    Args:
        logits: Logits (...,c). The standard deviation has the denominator c - 1, as in the official code.

    References:
        Sun et al. 2024 (CVPR).
    """
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-7)


def teacher_losses(teachers: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy of each teacher with the labels, (M,B), in nats.

    Args:
        teachers: Logits (M,B,c).
        labels: Class indices (B,), -1 for an unlabeled image.

    Returns:
        Finite values, even where the label has probability 0; zero for unlabeled images.
    """
    log_p = teachers.log_softmax(-1)
    loss = -log_p.gather(-1, labels.clamp(min=0).expand(len(teachers), -1)[..., None]).squeeze(-1)
    return loss.clamp(max=LARGEST) * (labels != UNLABELED)


def others_losses_weights(losses: Tensor) -> Tensor:
    """Returns the teacher weights (1 - softmax_m(losses)) / (M - 1), (M,B).

    Args:
        losses: Losses (M,B) of the teachers in nats.

    Returns:
        Weights that sum to 1 over teachers; a single teacher has weight 1.

    References:
        Zhang, Chen and Wang 2022 (CA-MKD).
    """
    others = len(losses) - 1
    return (1 - losses.softmax(0)) / others if others else torch.ones_like(losses)
