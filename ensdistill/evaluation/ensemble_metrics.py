"""What a student is worth in teachers, how much members differ, and how closely a student follows its ensemble.

All in float64 on the CPU, all from log-probabilities: of members (M,N,c), of the ensemble or the student (N,c).
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
    """Calibrated NLL, in nats, of ensembles of 1, 2, ..., M of these members: M numbers, the first for one member.

    Each is the mean over the M cyclic windows of so many consecutive members (one window for all M), so every member
    counts alike at every size; every window has a temperature of its own.
    member_log_p (M,N,c), labels (N,): the images to report on. fit_member_log_p (M,N',c), fit_labels (N',): the
    validation images on which temperatures are fitted, by the same members in the same order; may be the same images.
    Costs M^2 - M + 1 fits. Ashukha et al. 2020.
    """
    member_log_p, fit_member_log_p = member_log_p.cpu(), fit_member_log_p.cpu()

    def cnll(window: list[int]) -> float:
        log_p, fit_log_p = log_mean_probability(member_log_p[window]), log_mean_probability(fit_member_log_p[window])
        return calibrated_nll(log_p, labels, fit_log_p, fit_labels)

    members = len(member_log_p)
    return [fmean(map(cnll, _cyclic_windows(members, size))) for size in range(1, members + 1)]


def _cyclic_windows(members: int, size: int) -> list[list[int]]:
    starts = range(members) if size < members else range(1)
    return [[(start + step) % members for step in range(size)] for start in starts]


def deep_ensemble_equivalent(cnll: float, curve: Sequence[float]) -> float:
    """DEE: the size of an ensemble whose calibrated NLL is `cnll`, between the curve's points by straight lines.

    cnll: of the student, in nats. curve: from `ensemble_curve`, on the same images.
    Returns a number in [1, M]. It saturates: 1 also for what is worse than one member, M also for what is better than
    all M. Where noise lets the curve rise, its running minimum stands for it; on a flat stretch the smallest size
    counts. NaN if cnll is NaN or the curve holds one. Ashukha et al. 2020.
    """
    if any(map(math.isnan, (cnll, *curve))):
        return math.nan
    best = list(accumulate(curve, min))
    if cnll >= best[0]:
        return 1.0
    for size, (worse, better) in enumerate(pairwise(best), start=1):
        if cnll >= better:  # and below `worse`, or an earlier size had matched
            return size + (worse - cnll) / (worse - better)
    return float(len(best))


def pairwise_kl(member_log_p: Tensor) -> float:
    """Mean over ordered pairs i != j and images of KL(p_i || p_j), in nats; 0 for equal members and for one alone.

    member_log_p (M,N,c). Infinite where a member rules out what another thinks possible. Nam et al. 2021.
    """
    pairs = permutations(member_log_p.cpu().double(), 2)
    divergences = [float(_kl(log_p, log_q).mean()) for log_p, log_q in pairs]
    return fmean(divergences) if divergences else 0.0


def mutual_information(member_log_p: Tensor) -> float:
    """Mean over images of H(mean_m p_m) - mean_m H(p_m), in nats, from 0 (equal members) to log M.

    How much of the ensemble's uncertainty is its members' disagreement. member_log_p (M,N,c).
    Malinin et al. 2020.
    """
    return max(float(disagreement(member_log_p).mean()), 0.0)  # below zero by rounding only


def disagreement(member_log_p: Tensor) -> Tensor:
    """The mutual information of each image, (M,N,c) -> nats (N,)."""
    member_log_p = member_log_p.cpu()
    return entropy(log_mean_probability(member_log_p)) - entropy(member_log_p).mean(0)


def top_1_agreement(log_p: Tensor, ensemble_log_p: Tensor) -> float:
    """Share of images, in [0, 1], to which student and ensemble (N,c) give the same likeliest class.

    Stanton et al. 2021.
    """
    return float((log_p.cpu().argmax(-1) == ensemble_log_p.cpu().argmax(-1)).double().mean())


def predictive_kl(log_p: Tensor, ensemble_log_p: Tensor) -> float:
    """Mean over images of KL(ensemble || student), in nats: 0 for a perfectly faithful student. Both (N,c).

    Stanton et al. 2021.
    """
    return float(_kl(ensemble_log_p.cpu().double(), log_p.cpu().double()).mean())


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each image, (...,c) -> (...); a class of probability zero adds nothing, whatever q says of it."""
    p = log_p.exp()
    return torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(-1)
