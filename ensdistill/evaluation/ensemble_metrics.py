"""Metrics of ensembles: deep-ensemble equivalent, diversity of members, and fidelity of a student to its ensemble.

All metrics are computed in float64 on the CPU from log-probabilities: (M,N,c) for members, (N,c) for an ensemble or a
student.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise, permutations
from statistics import fmean

import torch
from torch import Tensor

from ensdistill.evaluation.calibration import calibrated_nll
from ensdistill.evaluation.metrics import entropy, log_mean_probability


def ensemble_curve(member_log_p: Tensor, labels: Tensor, fit_member_log_p: Tensor, fit_labels: Tensor) -> list[float]:
    """Returns the calibrated NLL of ensembles of 1, 2, ..., M members.

    Each value is the mean over the M cyclic windows of consecutive members (a single window for size M), so that all
    members have equal weight at every size. A separate temperature is fitted for each of the M^2 - M + 1 windows.

    Args:
        member_log_p: Log-probabilities (M,N,c) on the evaluated images.
        labels: Class indices (N,).
        fit_member_log_p: Log-probabilities (M,N',c) of the same members, in the same order, on the validation images
            that determine the temperatures; the validation images may also be the evaluated images.
        fit_labels: Class indices (N',).

    Returns:
        M values in nats, in order of ensemble size.

    References:
        Ashukha et al. 2020.
    """
    member_log_p, fit_member_log_p = member_log_p.cpu(), fit_member_log_p.cpu()

    def cnll(window: list[int]) -> float:
        log_p, fit_log_p = log_mean_probability(member_log_p[window]), log_mean_probability(fit_member_log_p[window])
        return calibrated_nll(log_p, labels, fit_log_p, fit_labels)

    members = len(member_log_p)
    return [fmean(map(cnll, _cyclic_windows(members, size))) for size in range(1, members + 1)]


def _cyclic_windows(members: int, size: int) -> list[list[int]]:
    """Returns the indices of all cyclic windows of consecutive members."""
    starts = range(members) if size < members else range(1)
    return [[(start + step) % members for step in range(size)] for start in starts]


def deep_ensemble_equivalent(cnll: float, curve: Sequence[float]) -> float:
    """Returns the DEE: the ensemble size that matches the student's calibrated NLL, interpolated linearly on the curve.

    The result is 1 for a student that is worse than a single member, and M for a student that is better than the
    ensemble of all M members. If the curve rises because of noise, its running minimum is used. On a flat part of the
    curve, the smallest size is returned.

    Args:
        cnll: Calibrated NLL of the student, in nats.
        curve: Result of `ensemble_curve` on the same images.

    Returns:
        A number in [1, M]; NaN if cnll or the curve contains NaN.

    References:
        Ashukha et al. 2020.
    """
    if any(map(math.isnan, (cnll, *curve))):
        return math.nan
    best = list(accumulate(curve, min))
    if cnll >= best[0]:
        return 1.0
    for size, (worse, better) in enumerate(pairwise(best), start=1):
        if cnll >= better:  # cnll < worse, because otherwise a smaller size would have been returned
            return size + (worse - cnll) / (worse - better)
    return float(len(best))


def pairwise_kl(member_log_p: Tensor) -> float:
    """Returns the mean of KL(p_i || p_j) over ordered pairs i != j and images, in nats.

    Args:
        member_log_p: Log-probabilities (M,N,c).

    Returns:
        The mean; 0 for identical members or a single member, and infinite if a class has probability 0 for one member
        but not for another.

    References:
        Nam et al. 2021.
    """
    pairs = permutations(member_log_p.cpu().double(), 2)
    divergences = [float(_kl(log_p, log_q).mean()) for log_p, log_q in pairs]
    return fmean(divergences) if divergences else 0.0


def mutual_information(member_log_p: Tensor) -> float:
    """Returns the mean over images of H(mean_m p_m) - mean_m H(p_m), in nats, from 0 (equal members) to log M.

    This is the part of the ensemble's uncertainty that is caused by disagreement between members.

    Args:
        member_log_p: Log-probabilities (M,N,c).

    References:
        Malinin et al. 2020.
    """
    return max(float(disagreement(member_log_p).mean()), 0.0)  # rounding can make the mean negative


def disagreement(member_log_p: Tensor) -> Tensor:
    """Returns the mutual information of each image, (N,) in nats, from log-probabilities (M,N,c)."""
    member_log_p = member_log_p.cpu()
    return entropy(log_mean_probability(member_log_p)) - entropy(member_log_p).mean(0)


def top_1_agreement(log_p: Tensor, ensemble_log_p: Tensor) -> float:
    """Returns the fraction of images, in [0, 1], for which the student and the ensemble predict the same class.

    Args:
        log_p: Log-probabilities (N,c) of the student.
        ensemble_log_p: Log-probabilities (N,c) of the ensemble.

    References:
        Stanton et al. 2021.
    """
    return float((log_p.cpu().argmax(-1) == ensemble_log_p.cpu().argmax(-1)).double().mean())


def predictive_kl(log_p: Tensor, ensemble_log_p: Tensor) -> float:
    """Returns the mean over images of KL(ensemble || student), in nats; 0 for equal predictions.

    Args:
        log_p: Log-probabilities (N,c) of the student.
        ensemble_log_p: Log-probabilities (N,c) of the ensemble.

    References:
        Stanton et al. 2021.
    """
    return float(_kl(ensemble_log_p.cpu().double(), log_p.cpu().double()).mean())


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Returns KL(p || q) for each image, (...,c) -> (...); classes with p = 0 contribute 0 for any q."""
    p = log_p.exp()
    return torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(-1)
