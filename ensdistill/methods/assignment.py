"""Assignment of M teachers to K subnetworks, defined only in this module.

Teacher m teaches subnetwork m mod K. If K < M, a subnetwork learns from the mean of its teachers. If K > M, teachers
are reused in order: subnetwork k learns from teacher k mod M.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def teachers_of(subnetwork: int, subnetworks: int, teachers: int) -> list[int]:
    """Returns the indices of the teachers that teach one subnetwork.

    Args:
        subnetwork: Index k of the subnetwork, in [0, K).
        subnetworks: Number of subnetworks K.
        teachers: Number of teachers M.
    """
    if subnetworks >= teachers:
        return [subnetwork % teachers]
    return list(range(subnetwork, teachers, subnetworks))


def subnetwork_targets(teachers: Tensor, subnetworks: int) -> Tensor:
    """Returns the target of each subnetwork: the mean over the teachers that are assigned to it.

    Args:
        teachers: Probabilities or logits of the teachers, (M,B,c).
        subnetworks: Number of subnetworks K.

    Returns:
        Targets (K,B,c).
    """
    own = [teachers_of(k, subnetworks, len(teachers)) for k in range(subnetworks)]
    return torch.stack([teachers[indices].mean(0) for indices in own])


def sample_pair(teachers: int, subnetworks: int, generator: torch.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns a uniformly random ordered pair of different teachers, and the pair of subnetworks that they teach.

    If K = M, both pairs contain the same two indices. If K < M, the two subnetworks can coincide. If K > M, a teacher
    can teach several subnetworks; for each of the two teachers, one of these subnetworks is drawn at random.

    Args:
        teachers: Number of teachers M, at least 2.
        subnetworks: Number of subnetworks K.
        generator: Source of random numbers, on the CPU.

    References:
        Nam et al. 2022; their official code draws both pairs with the same random key.
    """
    i, j = torch.randperm(teachers, generator=generator)[:2].tolist()
    return (i, j), (
        _sample_subnetwork(i, teachers, subnetworks, generator),
        _sample_subnetwork(j, teachers, subnetworks, generator),
    )


def _sample_subnetwork(teacher: int, teachers: int, subnetworks: int, generator: torch.Generator) -> int:
    """Returns the index of the subnetwork that a teacher teaches; if there are several, one is drawn uniformly."""
    candidates = [k for k in range(subnetworks) if teacher in teachers_of(k, subnetworks, teachers)]
    if len(candidates) == 1:
        return candidates[0]
    return candidates[int(torch.randint(len(candidates), (), generator=generator))]
