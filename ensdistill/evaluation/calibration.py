"""Metrics after one temperature, so that networks are compared by what they know and not by how loudly they say it.

All in float64 on the CPU, all from log-probabilities (N,c): softmax(log p / tau) is softmax(logits / tau), because a
softmax does not see what is added to all of its logits.
"""

import math
from typing import NamedTuple

from torch import Tensor

from ensdistill.evaluation.metrics import brier, ece, nll

COLDEST, HOTTEST = 0.05, 20.0  # far outside of what trained networks need
FAR_BELOW = -1e300  # finite, so that 0 * FAR_BELOW is 0, and exp(FAR_BELOW / tau) = 0 at every temperature allowed


class Fitted(NamedTuple):
    """A temperature, and whether the images determine it.

    Attributes:
        temperature: tau in [0.05, 20]; NaN if the log-probabilities hold NaN.
        identified: False where NLL has no minimum inside these bounds.
    """

    temperature: float
    identified: bool


def fit(log_p: Tensor, labels: Tensor) -> Fitted:
    """Returns the temperature at which these images' labels are likeliest: argmin_tau NLL(softmax(log_p / tau)).

    NLL is convex in beta = 1/tau; tau is the root of its derivative, sum_n (sum_k q_nk log p_nk - log p_n(y_n)) with
    q = softmax(beta log p). Guo et al. 2017, section 4.2.

    There is no root if every label is its image's likeliest class (NLL falls with tau, or does not depend on it): the
    temperature is 1 and not identified. Nor is there one if the network is no better than chance,
    or if the root lies outside the bounds: the temperature is the nearer bound and not identified.
    A zero probability stays zero at every temperature, so an image whose label has none does not influence tau.

    Args:
        log_p: Log-probabilities (N,c), of several members the log of their mean probability.
        labels: Class indices (N,).
    """
    from scipy.optimize import brentq  # here: a slow import that few commands need

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
    if at_hot >= 0 or slope(cold) <= 0:  # it grows with beta, so there is no root inside
        return Fitted(HOTTEST if at_hot >= 0 else COLDEST, False)
    return Fitted(math.exp(-brentq(slope, hot, cold, xtol=1e-12)), True)


def fit_temperature(log_p: Tensor, labels: Tensor) -> float:
    """Returns the temperature of `fit` alone."""
    return fit(log_p, labels).temperature


def calibrated(log_p: Tensor, temperature: float) -> Tensor:
    """log softmax(log_p / tau): log-probabilities (...,c) -> the same shape; temperature: tau > 0."""
    return (log_p.cpu().double() / temperature).log_softmax(-1)


def calibrated_metrics(log_p: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """NLL (nats), Brier and ECE after that temperature: cnll, cbrier, cece. Accuracy does not change.

    log_p (N,c), labels (N,): the images to report on. temperature: from `fit_temperature` on validation images.
    """
    log_q, labels = calibrated(log_p, temperature), labels.cpu()
    return {f"c{metric.__name__}": metric(log_q, labels) for metric in (nll, brier, ece)}


def calibrated_nll(log_p: Tensor, labels: Tensor, fit_log_p: Tensor, fit_labels: Tensor) -> float:
    """cNLL in nats of images (N,c), (N,) at the temperature fitted on others (N',c), (N',).

    Given the same images twice it is the least NLL that any temperature reaches on them: good enough to rank trials by,
    flattered by about 1/N nats, what one number fitted on N images gains there over fresh ones. Never report that one.
    """
    return nll(calibrated(log_p, fit_temperature(fit_log_p, fit_labels)), labels.cpu())
