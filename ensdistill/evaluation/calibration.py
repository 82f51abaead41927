"""Metrics after temperature scaling, so that networks are compared independently of over- or under-confidence.

All metrics are computed in float64 on the CPU from log-probabilities (N,c). Logits are not required, because adding a
constant to all logits does not change the softmax: softmax(log p / tau) = softmax(logits / tau).
"""

import math
from typing import NamedTuple

from torch import Tensor

from ensdistill.evaluation.metrics import brier, ece, nll

COLDEST, HOTTEST = 0.05, 20.0  # bounds of tau, far beyond the temperatures of trained networks
FAR_BELOW = -1e300  # finite, so that 0 * FAR_BELOW = 0; exp(FAR_BELOW / tau) = 0 for every allowed temperature


class Fitted(NamedTuple):
    """A temperature, and whether the images determine it.

    Attributes:
        temperature: tau in [0.05, 20]; NaN if the log-probabilities contain NaN.
        identified: Whether the NLL has a minimum inside these bounds.
    """

    temperature: float
    identified: bool


def fit(log_p: Tensor, labels: Tensor) -> Fitted:
    """Returns the temperature with the lowest NLL on these images: argmin_tau NLL(softmax(log_p / tau)).

    The NLL is convex in beta = 1/tau, so the minimum is at the root of the derivative,
    sum_n (sum_k q_nk log p_nk - log p_n(y_n)) with q = softmax(beta log p).

    The temperature is not identified in two cases. In the first case, every label is the most likely class of its
    image. The NLL then decreases as tau decreases, or is constant; the derivative has no root, and the returned
    temperature is 1. In the second case, the network is no better than chance, or the root is outside the bounds. The
    nearer bound is then returned. An image whose label has zero probability does not influence tau, because zero
    probabilities stay zero at every temperature.

    Args:
        log_p: Log-probabilities (N,c); for several members, the logarithm of their mean probability.
        labels: Class indices (N,).

    References:
        Guo et al. 2017, section 4.2.
    """
    from scipy.optimize import brentq  # imported here, because the import is slow and rarely needed

    log_p, labels = log_p.cpu().double(), labels.cpu()
    own = log_p.gather(-1, labels[:, None])
    lead = (log_p - own)[~own.squeeze(-1).isneginf()].clamp(min=FAR_BELOW)

    def slope(log_beta: float) -> float:
        return float((lead * (lead * math.exp(log_beta)).softmax(-1)).sum())

    hot, cold = -math.log(HOTTEST), -math.log(COLDEST)
    at_hot = slope(hot)
    if math.isnan(at_hot):
        return Fitted(math.nan, False)
    if not (lead > 0).any():
        return Fitted(1.0, False)
    if at_hot >= 0 or slope(cold) <= 0:  # the slope increases with beta, so without a change of sign, there is no root
        return Fitted(HOTTEST if at_hot >= 0 else COLDEST, False)
    return Fitted(math.exp(-brentq(slope, hot, cold, xtol=1e-12)), True)


def fit_temperature(log_p: Tensor, labels: Tensor) -> float:
    """Returns the temperature from `fit`, without the `identified` flag."""
    return fit(log_p, labels).temperature


def calibrated(log_p: Tensor, temperature: float) -> Tensor:
    """Returns log softmax(log_p / tau).

    Args:
        log_p: Log-probabilities (...,c).
        temperature: tau > 0.

    Returns:
        Log-probabilities of the same shape, float64, on the CPU.
    """
    return (log_p.cpu().double() / temperature).log_softmax(-1)


def calibrated_metrics(log_p: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """Returns NLL (nats), Brier score and ECE after temperature scaling, under the names cnll, cbrier and cece.

    Temperature scaling does not change the accuracy.

    Args:
        log_p: Log-probabilities (N,c) of the evaluated images.
        labels: Class indices (N,).
        temperature: Temperature fitted by `fit_temperature` on validation images.
    """
    log_q, labels = calibrated(log_p, temperature), labels.cpu()
    return {f"c{metric.__name__}": metric(log_q, labels) for metric in (nll, brier, ece)}


def calibrated_nll(log_p: Tensor, labels: Tensor, fit_log_p: Tensor, fit_labels: Tensor) -> float:
    """Returns the calibrated NLL in nats, at the temperature fitted on a second set of images.

    If both sets are the same, the value is the lowest NLL over all temperatures. This value is sufficient to rank
    trials, but it is optimistic by about 1/N nats, the gain from fitting one parameter on N images. Never report it as
    a result.

    Args:
        log_p: Log-probabilities (N,c) of the evaluated images.
        labels: Class indices (N,).
        fit_log_p: Log-probabilities (N',c) of the images that determine the temperature.
        fit_labels: Class indices (N',).
    """
    return nll(calibrated(log_p, fit_temperature(fit_log_p, fit_labels)), labels.cpu())
