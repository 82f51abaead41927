"""Assignment of teachers to subnetworks, with fewer, equally many and more subnetworks than teachers."""

from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from ensdistill.methods.assignment import sample_pair, subnetwork_targets, teachers_of


@pytest.mark.parametrize(
    ("subnetworks", "teachers", "expected"),
    [
        (1, 3, [[0, 1, 2]]),
        (2, 3, [[0, 2], [1]]),
        (2, 4, [[0, 2], [1, 3]]),
        (3, 3, [[0], [1], [2]]),
        (4, 2, [[0], [1], [0], [1]]),
        (5, 3, [[0], [1], [2], [0], [1]]),
        (3, 1, [[0], [0], [0]]),
    ],
)
def test_the_rule_assigns_the_expected_teachers_to_each_subnetwork(
    subnetworks: int, teachers: int, expected: list[list[int]]
) -> None:
    assert [teachers_of(k, subnetworks, teachers) for k in range(subnetworks)] == expected


@pytest.mark.parametrize("subnetworks", range(1, 6))
@pytest.mark.parametrize("teachers", range(1, 6))
def test_every_teacher_and_every_subnetwork_is_assigned(subnetworks: int, teachers: int) -> None:
    own = [teachers_of(k, subnetworks, teachers) for k in range(subnetworks)]
    assert {m for some in own for m in some} == set(range(teachers))
    assert all(own)


def test_the_target_of_a_subnetwork_is_the_mean_probability_of_its_teachers() -> None:
    p = torch.tensor([[[0.7, 0.2, 0.1]], [[0.5, 0.3, 0.2]], [[0.1, 0.6, 0.3]]], dtype=torch.float64)
    expected = torch.tensor([[[0.4, 0.4, 0.2]], [[0.5, 0.3, 0.2]]], dtype=torch.float64)
    assert_close(subnetwork_targets(p, 2), expected)


def test_with_as_many_subnetworks_as_teachers_each_target_is_the_prediction_of_one_teacher() -> None:
    p = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert torch.equal(subnetwork_targets(p, 3), p)


def test_if_there_are_more_subnetworks_than_teachers_the_teachers_are_reused_in_order() -> None:
    p = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert torch.equal(subnetwork_targets(p, 3), torch.stack([p[0], p[1], p[0]]))


@pytest.mark.parametrize(("teachers", "subnetworks"), [(2, 1), (4, 3), (3, 3), (4, 4), (2, 5), (3, 4)])
def test_the_two_drawn_teachers_differ_and_are_assigned_to_the_drawn_subnetworks(
    teachers: int, subnetworks: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        (i, j), (a, b) = sample_pair(teachers, subnetworks, generator)
        assert i != j
        assert i in teachers_of(a, subnetworks, teachers)
        assert j in teachers_of(b, subnetworks, teachers)


@pytest.mark.parametrize("members", [2, 3, 4])
def test_with_as_many_subnetworks_as_teachers_the_same_indices_are_drawn_for_both(members: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        teachers, subnetworks = sample_pair(members, members, generator)
        assert teachers == subnetworks


def test_every_ordered_pair_is_drawn_about_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = 2400
    count = Counter(sample_pair(4, 4, generator)[0] for _ in range(draws))
    assert len(count) == 12
    expected, sigma = draws / 12, (draws / 12 * 11 / 12) ** 0.5
    assert all(abs(n - expected) < 4 * sigma for n in count.values())


def test_all_subnetworks_to_which_a_teacher_is_assigned_are_drawn_about_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [sample_pair(2, 6, generator) for _ in range(1200)]
    count = Counter(subnetworks[0] for teachers, subnetworks in pairs if teachers[0] == 1)
    assert set(count) == {1, 3, 5}
    assert max(count.values()) - min(count.values()) < 80


def test_the_same_generator_state_draws_the_same_pair() -> None:
    draws = [[sample_pair(5, 3, torch.Generator().manual_seed(seed)) for seed in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 5
