"""The losses that all losses are made of, in log space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import F

if TYPE_CHECKING:
    from torch import Tensor


UNLABELED = -1


def label_cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy with the labels over subnetworks and labeled images.

    student: logits (K,B,c). labels: class indices (B,), -1 where there is no label.
    Returns a scalar in nats; zero if nothing in the batch is labeled.
    """
    tiled = labels.expand(student.shape[:2]).flatten()
    total = F.cross_entropy(student.flatten(0, 1), tiled, ignore_index=UNLABELED, reduction="sum")
    return total / (tiled != UNLABELED).sum().clamp(min=1)


def weighted_sum(*terms: tuple[float, Callable[[], Tensor]]) -> Tensor:
    """sum_i w_i term_i. A term of weight 0 is not computed: it adds nothing, not even where it is infinite.

    terms: weights and functions that return scalars. Returns a scalar; that of the first term times 0 if all weights
    are 0, so that there is something to differentiate.
    """
    counted = [weight * term() for weight, term in terms if weight]
    return sum(counted[1:], start=counted[0]) if counted else 0 * terms[0][1]()


def kl_divergence(targets: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 KL(targets || softmax(student / T)), averaged over all leading axes (never over classes).

    targets: probabilities already at temperature T, (..., B, c). student: logits (..., B, c), broadcast against them.
    Returns a scalar: nats per example, times temperature squared. Hinton et al. 2015, section 2.
    """
    return kl_per_example(targets, student, temperature).mean()


def kl_per_example(targets: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The same before the average: (..., B)."""
    return temperature**2 * kl_divergence_from_log(targets, (student / temperature).log_softmax(-1))


def kl_divergence_from_log(p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats: probabilities (..., c) and log-probabilities (..., c) -> (...)."""
    return (p * (safe_log(p) - log_q)).sum(-1)


def safe_log(probabilities: Tensor) -> Tensor:
    """The logarithm, finite at zero."""
    return probabilities.clamp(min=1e-30).log()
