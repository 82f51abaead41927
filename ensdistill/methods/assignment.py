"""How M teachers map to K subnetworks. The one place that says so.

Teacher m teaches subnetwork m mod K. With K < M a subnetwork learns the mean of its teachers;
with K > M teachers are taken again from the first, so that subnetwork k learns from teacher k mod M.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def teachers_of(subnetwork: int, subnetworks: int, teachers: int) -> list[int]:
    """The teachers that subnetwork k of K learns from, out of M."""
    if subnetworks >= teachers:
        return [subnetwork % teachers]
    return list(range(subnetwork, teachers, subnetworks))


def subnetwork_targets(teachers: Tensor, subnetworks: int) -> Tensor:
    """What each subnetwork is taught: (M,B,c) probabilities of the teachers -> (K,B,c), means over its own teachers."""
    own = [teachers_of(k, subnetworks, len(teachers)) for k in range(subnetworks)]
    return torch.stack([teachers[indices].mean(0) for indices in own])


def sample_pair(teachers: int, subnetworks: int, generator: torch.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """An ordered pair of different teachers, uniformly, and the pair of subnetworks that they teach.

    With K = M both pairs hold the same two indices (Nam et al. 2022, official code: one random key for both).
    With K < M the two subnetworks can coincide; with K > M one of a teacher's several subnetworks is drawn.
    """
    i, j = torch.randperm(teachers, generator=generator)[:2].tolist()
    return (i, j), (
        _sample_subnetwork(i, teachers, subnetworks, generator),
        _sample_subnetwork(j, teachers, subnetworks, generator),
    )


def _sample_subnetwork(teacher: int, teachers: int, subnetworks: int, generator: torch.Generator) -> int:
    pupils = [k for k in range(subnetworks) if teacher in teachers_of(k, subnetworks, teachers)]
    if len(pupils) == 1:
        return pupils[0]
    return pupils[int(torch.randint(len(pupils), (), generator=generator))]
