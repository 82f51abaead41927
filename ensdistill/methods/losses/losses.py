"""Elementary loss terms in log space, shared by all distillation losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import F

if TYPE_CHECKING:
    from torch import Tensor


UNLABELED = -1


def label_cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean cross-entropy with the labels over subnetworks and labeled images.

    Args:
        student: Logits (K,B,c).
        labels: Class indices (B,), -1 for an unlabeled image.

    Returns:
        A scalar in nats; zero if the batch has no labeled image.
    """
    tiled = labels.expand(student.shape[:2]).flatten()
    total = F.cross_entropy(student.flatten(0, 1), tiled, ignore_index=UNLABELED, reduction="sum")
    return total / (tiled != UNLABELED).sum().clamp(min=1)


def weighted_sum(*terms: tuple[float, Callable[[], Tensor]]) -> Tensor:
    """Returns sum_i w_i term_i; terms with weight 0 are not computed and contribute nothing, even if infinite.

    Args:
        *terms: Pairs of a weight and a function that returns a scalar.

    Returns:
        A scalar; the first term times 0 if all weights are 0, so that the result has a gradient.
    """
    counted = [term() if weight == 1 else weight * term() for weight, term in terms if weight]
    return sum(counted[1:], start=counted[0]) if counted else 0 * terms[0][1]()


def kl_divergence(targets: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(targets || softmax(student / T)), averaged over all axes but the classes.

    Args:
        targets: Probabilities at temperature T, (...,B,c).
        student: Logits (...,B,c), broadcast against the targets.
        temperature: Temperature T, above 0.

    Returns:
        A scalar: nats per example, times T^2.

    References:
        Hinton et al. 2015, section 2.
    """
    return kl_per_example(targets, student, temperature).mean()


def kl_per_example(targets: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(targets || softmax(student / T)) of each example, (...,B); arguments as in `kl_divergence`."""
    return temperature**2 * kl_divergence_from_log(targets, (student / temperature).log_softmax(-1))


def kl_divergence_from_log(p: Tensor, log_q: Tensor) -> Tensor:
    """Returns KL(p || q) in nats, (...).

    Args:
        p: Probabilities (...,c).
        log_q: Log-probabilities (...,c).
    """
    return (p * (safe_log(p) - log_q)).sum(-1)


def safe_log(probabilities: Tensor) -> Tensor:
    """Returns the natural logarithm of probabilities of any shape, clamped below at ln 1e-30."""
    return probabilities.clamp(min=1e-30).log()


def standardized(logits: Tensor) -> Tensor:
    """Returns the logits of each image with mean 0 and standard deviation 1.

    Args:
        logits: Logits (...,c). The standard deviation has the denominator c - 1, as in the official code.

    References:
        Sun et al. 2024 (CVPR).
    """
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-7)
