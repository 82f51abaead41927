"""Ensemble size, diversity and fidelity agree with METHODS sections 2.5 and 7, scipy, and explicit loops."""

import math
from statistics import fmean

import pytest
import scipy.stats
import torch
from torch import Tensor

from ensdistill.evaluation.calibration import fit_temperature
from ensdistill.evaluation.ensemble_metrics import (
    deep_ensemble_equivalent,
    ensemble_curve,
    mutual_information,
    pairwise_kl,
    predictive_kl,
    top_1_agreement,
)
from ensdistill.evaluation.metrics import nll

MEMBERS = torch.tensor([[[0.7, 0.2, 0.1]], [[0.5, 0.3, 0.2]], [[0.1, 0.6, 0.3]]], dtype=torch.float64)
PUBLISHED = [0.789, 0.708, 0.673, 0.655]  # WRN-28-10 on CIFAR-100, cNLL of 1 to 4 teachers


def random_members(seed: int, members: int = 4, images: int = 60, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Returns members (M,N,c) that depend on the same noisy truth, and labels drawn from this truth."""
    generator = torch.Generator().manual_seed(seed)
    truth = 2 * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    noise = torch.randn(members, images, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(truth.softmax(-1), 1, generator=generator).squeeze(1)
    return (2 * (truth + noise)).log_softmax(-1), labels


# --- the curve ---


def windows_by_hand(members: int) -> dict[int, list[list[int]]]:
    assert members == 3
    return {1: [[0], [1], [2]], 2: [[0, 1], [1, 2], [2, 0]], 3: [[0, 1, 2]]}


def test_the_ensemble_curve_is_the_calibrated_nll_averaged_over_all_cyclic_windows() -> None:
    log_p, labels = random_members(0, members=3)
    fit_log_p, fit_labels = random_members(1, members=3, images=80)
    expected = []
    for windows in windows_by_hand(3).values():
        terms = []
        for window in windows:
            mean, fit_mean = (x[window].exp().mean(0).log() for x in (log_p, fit_log_p))
            terms.append(nll((mean / fit_temperature(fit_mean, fit_labels)).log_softmax(-1), labels))
        expected.append(fmean(terms))
    assert ensemble_curve(log_p, labels, fit_log_p, fit_labels) == pytest.approx(expected, abs=1e-12)


def test_the_ensemble_curve_of_one_member_is_its_calibrated_nll() -> None:
    log_p, labels = random_members(2, members=1)
    temperature = fit_temperature(log_p[0], labels)
    expected = [nll((log_p[0] / temperature).log_softmax(-1), labels)]
    assert ensemble_curve(log_p, labels, log_p, labels) == pytest.approx(expected, abs=1e-12)


def test_the_ensemble_curve_of_equal_members_is_flat() -> None:
    log_p, labels = random_members(3, members=1)
    curve = ensemble_curve(log_p.expand(4, -1, -1), labels, log_p.expand(4, -1, -1), labels)
    assert curve == pytest.approx([curve[0]] * 4, abs=1e-12)


def test_the_ensemble_curve_decreases_if_the_errors_of_members_are_independent() -> None:
    log_p, labels = random_members(4, members=5, images=2000)
    curve = ensemble_curve(log_p, labels, log_p, labels)
    assert curve == sorted(curve, reverse=True)
    assert len(set(curve)) == 5


def test_the_ensemble_curve_does_not_change_if_the_order_of_members_is_rotated() -> None:
    log_p, labels = random_members(5)
    rotated = log_p.roll(1, 0)
    expected = ensemble_curve(log_p, labels, log_p, labels)
    assert ensemble_curve(rotated, labels, rotated, labels) == pytest.approx(expected, abs=1e-12)


def test_the_ensemble_curve_is_finite_if_members_assign_probability_zero_to_a_class() -> None:
    p = torch.tensor([[[0.7, 0.3, 0.0], [0.4, 0.6, 0.0]], [[1.0, 0.0, 0.0], [0.0, 0.8, 0.2]]], dtype=torch.float64)
    curve = ensemble_curve(p.log(), torch.tensor([0, 1]), p.log(), torch.tensor([0, 1]))
    alone = [-(math.log(0.7) + math.log(0.6)) / 2, -math.log(0.8) / 2]  # every label is the most likely class
    assert curve == pytest.approx([sum(alone) / 2, -(math.log(0.85) + math.log(0.7)) / 2])


# --- its inverse ---


@pytest.mark.parametrize(("cnll", "expected"), [(0.750, 1.481), (0.760, 1.358), (0.682, 2.743), (0.665, 3.444)])
def test_the_ensemble_equivalent_equals_the_hand_computed_value(cnll: float, expected: float) -> None:
    assert deep_ensemble_equivalent(cnll, PUBLISHED) == pytest.approx(expected, abs=5e-4)


def test_the_ensemble_equivalent_of_a_point_on_the_curve_is_its_ensemble_size() -> None:
    assert [deep_ensemble_equivalent(point, PUBLISHED) for point in PUBLISHED] == [1, 2, 3, 4]


def test_the_ensemble_equivalent_saturates_at_one_and_at_the_number_of_members() -> None:
    values = [deep_ensemble_equivalent(cnll, PUBLISHED) for cnll in (math.inf, 0.9, 0.6, 0.0)]
    assert values == [1, 1, 4, 4]


def test_the_ensemble_equivalent_never_decreases_when_nll_decreases() -> None:
    noisy = [0.8, 0.7, 0.72, 0.66, 0.67]
    values = [deep_ensemble_equivalent(0.85 - step / 1000, noisy) for step in range(250)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (1, 5)


def test_the_ensemble_equivalent_uses_the_running_minimum_of_a_noisy_curve() -> None:
    noisy, smooth = [0.8, 0.7, 0.72, 0.66], [0.8, 0.7, 0.7, 0.66]
    for cnll in (0.75, 0.71, 0.7, 0.69, 0.66):
        assert deep_ensemble_equivalent(cnll, noisy) == deep_ensemble_equivalent(cnll, smooth)
    assert deep_ensemble_equivalent(0.7, noisy) == 2  # the smallest size with this score
    assert deep_ensemble_equivalent(0.68, noisy) == pytest.approx(3.5)


@pytest.mark.parametrize("cnll", [0.4, 0.5, 0.6])
def test_the_ensemble_equivalent_of_a_single_teacher_is_one(cnll: float) -> None:
    assert deep_ensemble_equivalent(cnll, [0.5]) == 1


@pytest.mark.parametrize(("cnll", "curve"), [(math.nan, PUBLISHED), (0.7, [0.8, math.nan, 0.6])])
def test_the_ensemble_equivalent_of_a_nan_score_is_nan_and_not_the_best_value(cnll: float, curve: list[float]) -> None:
    assert math.isnan(deep_ensemble_equivalent(cnll, curve))


# --- diversity ---


def test_diversity_equals_the_hand_computed_value() -> None:
    assert pairwise_kl(MEMBERS.log()) == pytest.approx(0.482689, abs=1e-5)
    assert mutual_information(MEMBERS.log()) == pytest.approx(0.142333, abs=1e-5)


def test_pairwise_kl_agrees_with_scipy_over_all_ordered_pairs() -> None:
    log_p, _ = random_members(6)
    p = log_p.exp().numpy()
    terms = [scipy.stats.entropy(p[i], p[j], axis=-1).mean() for i in range(4) for j in range(4) if i != j]
    assert pairwise_kl(log_p) == pytest.approx(float(fmean(terms)), abs=1e-12)


def test_mutual_information_agrees_with_scipy() -> None:
    log_p, _ = random_members(7)
    p = log_p.exp().numpy()
    expected = (scipy.stats.entropy(p.mean(0), axis=-1) - scipy.stats.entropy(p, axis=-1).mean(0)).mean()
    assert mutual_information(log_p) == pytest.approx(float(expected), abs=1e-12)


def test_mutual_information_is_the_mean_kl_divergence_of_the_members_from_their_mean() -> None:
    log_p, _ = random_members(8)
    p = log_p.exp().numpy()
    terms = [scipy.stats.entropy(p[m], p.mean(0), axis=-1).mean() for m in range(4)]
    assert mutual_information(log_p) == pytest.approx(float(fmean(terms)), abs=1e-12)


@pytest.mark.parametrize("members", [1, 2, 3, 7])
def test_equal_members_have_zero_diversity(members: int) -> None:
    log_p = random_members(9, members=1)[0].expand(members, -1, -1)
    assert pairwise_kl(log_p) == 0
    assert 0 <= mutual_information(log_p) < 1e-12


def test_members_that_are_certain_of_different_classes_have_the_maximum_mutual_information() -> None:
    log_p = torch.eye(3, dtype=torch.float64).log()[:, None]
    assert mutual_information(log_p) == pytest.approx(math.log(3))
    assert pairwise_kl(log_p) == math.inf


def test_a_class_with_probability_zero_for_all_members_adds_no_diversity() -> None:
    ruled_out = torch.full((3, 1, 1), -torch.inf, dtype=torch.float64)
    padded = torch.cat([MEMBERS.log(), ruled_out], -1)
    assert pairwise_kl(padded) == pytest.approx(pairwise_kl(MEMBERS.log()), abs=1e-15)
    assert mutual_information(padded) == pytest.approx(mutual_information(MEMBERS.log()), abs=1e-15)


# --- fidelity ---


def test_agreement_is_the_share_of_images_with_the_same_most_likely_class() -> None:
    student = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.9, 0.1]]).log()
    ensemble = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.8, 0.2]]).log()
    assert top_1_agreement(student, ensemble) == 0.75
    assert top_1_agreement(ensemble, student) == 0.75


def test_predictive_kl_is_the_divergence_of_the_student_from_the_ensemble_and_not_the_reverse() -> None:
    (student, ensemble), _ = random_members(10, members=2)
    expected = scipy.stats.entropy(ensemble.exp().numpy(), student.exp().numpy(), axis=-1).mean()
    reverse = scipy.stats.entropy(student.exp().numpy(), ensemble.exp().numpy(), axis=-1).mean()
    assert predictive_kl(student, ensemble) == pytest.approx(float(expected), abs=1e-12)
    assert abs(expected - reverse) > 1e-3


def test_a_student_that_equals_its_ensemble_has_perfect_fidelity() -> None:
    log_p = random_members(11)[0][0]
    assert top_1_agreement(log_p, log_p) == 1
    assert predictive_kl(log_p, log_p) == 0


def test_a_student_with_probability_zero_for_a_possible_class_has_infinite_kl() -> None:
    certain, unsure = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.75, 0.25]]).log()
    assert predictive_kl(certain, unsure) == math.inf
    assert predictive_kl(unsure, certain) == pytest.approx(-math.log(0.75))


def test_diversity_and_fidelity_are_computed_in_float64_for_float32_predictions() -> None:
    log_p = random_members(12)[0].float()
    assert pairwise_kl(log_p) == pairwise_kl(log_p.double())
    assert mutual_information(log_p) == mutual_information(log_p.double())
    assert predictive_kl(log_p[0], log_p[1]) == predictive_kl(log_p[0].double(), log_p[1].double())
