"""Metrics against the cases of METHODS section 7, loops by hand, and torchmetrics."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from ensdistill.metrics import accuracy, all_metrics, brier, ece, log_mean_probability, nll

P = torch.tensor([[0.82, 0.18], [0.61, 0.39], [0.28, 0.72], [0.57, 0.43]], dtype=torch.float64)
Y = torch.tensor([0, 1, 1, 0])


def random_case(seed: int, images: int = 400, classes: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_p = (2 * torch.randn(images, classes, generator=generator, dtype=torch.float64)).log_softmax(-1)
    guess = torch.randint(classes, (images,), generator=generator)
    right = torch.rand(images, generator=generator) < 0.5
    return log_p, torch.where(right, log_p.argmax(-1), guess)


@pytest.mark.parametrize(
    ("name", "expected"), [("accuracy", 0.75), ("nll", 0.507671), ("brier", 0.3339), ("ece", 0.375)]
)
def test_metric_is_the_hand_constant(name: str, expected: float) -> None:
    assert all_metrics(P.log(), Y)[name] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_agrees_with_torchmetrics(seed: int) -> None:
    log_p, labels = random_case(seed)
    oracle = multiclass_accuracy(log_p.exp(), labels, num_classes=7, average="micro")
    assert accuracy(log_p, labels) == pytest.approx(float(oracle), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_ece_agrees_with_torchmetrics(seed: int) -> None:
    log_p, labels = random_case(seed)
    oracle = multiclass_calibration_error(log_p.exp(), labels, num_classes=7, n_bins=15, norm="l1")
    assert ece(log_p, labels) == pytest.approx(float(oracle), abs=1e-6)


def test_nll_is_the_mean_over_images_of_minus_the_log_probability_of_the_label() -> None:
    log_p, labels = random_case(5)
    terms = [-float(row[label]) for row, label in zip(log_p, labels.tolist(), strict=True)]
    assert nll(log_p, labels) == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_brier_is_summed_over_classes_and_not_divided_by_them() -> None:
    log_p, labels = random_case(6)
    terms = [
        sum((math.exp(row[k]) - (k == label)) ** 2 for k in range(7))
        for row, label in zip(log_p.tolist(), labels.tolist(), strict=True)
    ]
    assert brier(log_p, labels) == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_certain_and_right_is_perfect_in_every_metric() -> None:
    log_p = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=torch.float64)
    assert all_metrics(log_p, torch.tensor([0, 1])) == {"accuracy": 1.0, "nll": 0.0, "brier": 0.0, "ece": 0.0}


def test_certain_and_wrong_is_worst_in_every_metric() -> None:
    log_p = torch.tensor([[0.0, -torch.inf]], dtype=torch.float64)
    assert all_metrics(log_p, torch.tensor([1])) == {"accuracy": 0.0, "nll": math.inf, "brier": 2.0, "ece": 1.0}


def test_confidence_that_rounds_above_one_falls_in_the_last_bin() -> None:
    log_p = torch.tensor([[1e-15, -40.0]], dtype=torch.float64)
    assert ece(log_p, torch.tensor([0])) == pytest.approx(0, abs=1e-12)


EDGES = torch.linspace(0, 1, 16, dtype=torch.float64)
# Edges k/15 that come back from their logarithm to the last bit; of three classes the likeliest has 1/3 at least.
EXACT = [k for k in range(6, 15) if EDGES[k].log().exp() == EDGES[k]]


@pytest.mark.parametrize("k", EXACT)
def test_confidence_on_a_bin_edge_belongs_to_the_bin_below(k: int) -> None:
    # Beside it, in the bin below, a confidence that is wrong where this one is right: one gap for the two.
    edge = float(EDGES[k])
    below = edge - 0.02
    p = torch.tensor([[c, (1 - c) / 2, (1 - c) / 2] for c in (edge, below)], dtype=torch.float64)
    together = abs((1 - edge) + (0 - below)) / 2
    assert ece(p.log(), torch.tensor([0, 1])) == pytest.approx(together, abs=1e-9)


def test_confidence_one_half_on_two_classes_has_its_own_side_of_the_edges() -> None:
    # 0.5 lies inside (7/15, 8/15]; half right, half wrong is perfectly calibrated there.
    log_p = torch.full((4, 2), 0.5, dtype=torch.float64).log()
    labels = torch.tensor([0, 1, 0, 1])  # argmax of a tie is the first class
    assert ece(log_p, labels) == pytest.approx(0, abs=1e-12)


def test_log_mean_probability_is_the_log_of_the_naive_mean() -> None:
    logits = 3 * torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    assert_close(log_mean_probability(logits), logits.double().softmax(-1).mean(0).log())


def test_log_mean_probability_of_one_member_is_its_own_log_softmax() -> None:
    logits = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(0))
    assert_close(log_mean_probability(logits), logits[0].double().log_softmax(-1))


def test_log_mean_probability_survives_logits_whose_probabilities_underflow() -> None:
    logits = torch.tensor([[[0.0, -2000.0]], [[0.0, -1000.0]]])
    assert_close(log_mean_probability(logits)[0, 1], torch.tensor(-1000 - math.log(2), dtype=torch.float64))


def test_metrics_of_float32_are_computed_in_float64() -> None:
    log_p, labels = random_case(8, images=1000)
    single = all_metrics(log_p.float(), labels)
    assert single == pytest.approx(all_metrics(log_p.float().double(), labels), abs=1e-15)
