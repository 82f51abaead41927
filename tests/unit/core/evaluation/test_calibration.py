"""Temperatures and calibrated metrics agree with METHODS section 7, scipy, torchmetrics and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from torch import Tensor
from torch.testing import assert_close
from torchmetrics.functional.classification import multiclass_calibration_error

from ensdistill.evaluation.calibration import calibrated, calibrated_metrics, calibrated_nll, fit, fit_temperature
from ensdistill.evaluation.metrics import accuracy, all_metrics, nll

P = torch.tensor([[0.82, 0.18], [0.61, 0.39], [0.28, 0.72], [0.57, 0.43]], dtype=torch.float64)
Y = torch.tensor([0, 1, 1, 0])


def random_case(seed: int, temperature: float = 1.7, images: int = 400, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities, and labels drawn at another temperature, which the fit should approximately find."""
    generator = torch.Generator().manual_seed(seed)
    log_p = (3 * torch.randn(images, classes, generator=generator, dtype=torch.float64)).log_softmax(-1)
    p = (log_p / temperature).softmax(-1)
    return log_p, torch.multinomial(p, 1, generator=generator).squeeze(1)


def naive_nll(log_p: Tensor, labels: Tensor, temperature: float) -> float:
    rows = log_softmax(log_p.numpy() / temperature, axis=-1)
    return float(-np.mean([row[label] for row, label in zip(rows, labels.tolist(), strict=True)]))


def log_of(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_temperature_and_calibrated_nll_equal_the_hand_computed_values() -> None:
    temperature = fit_temperature(P.log(), Y)
    assert temperature == pytest.approx(0.520664, abs=1e-5)
    assert calibrated_metrics(P.log(), Y, temperature)["cnll"] == pytest.approx(0.468717, abs=1e-5)


def test_the_temperature_of_a_constant_prediction_agrees_with_its_closed_form() -> None:
    # The best constant prediction is the label frequency: sigmoid(logit / tau) = 3/4.
    log_p = log_of(*[[0.9, 0.1]] * 4)
    temperature = fit_temperature(log_p, torch.tensor([0, 0, 0, 1]))
    assert temperature == pytest.approx(math.log(9) / math.log(3), rel=1e-9)


@pytest.mark.parametrize("truth", [0.2, 1.0, 1.7, 9.0])
def test_the_temperature_agrees_with_the_bounded_search_of_scipy(truth: float) -> None:
    log_p, labels = random_case(1, truth)
    found = minimize_scalar(
        lambda x: naive_nll(log_p, labels, math.exp(x)), bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}
    )
    assert fit_temperature(log_p, labels) == pytest.approx(math.exp(found.x), rel=1e-6)


def test_the_temperature_agrees_with_the_published_nelder_mead_search() -> None:
    log_p, labels = random_case(2)
    found = minimize(
        lambda x: naive_nll(log_p, labels, float(x[0])), 1.0, method="Nelder-Mead", options={"xatol": 1e-9}
    )
    assert fit_temperature(log_p, labels) == pytest.approx(float(found.x[0]), rel=1e-6)


def test_the_fitted_temperature_is_the_one_used_to_sample_the_labels() -> None:
    log_p, labels = random_case(3, temperature=1.7, images=20_000)
    assert fit_temperature(log_p, labels) == pytest.approx(1.7, rel=0.03)


@pytest.mark.parametrize("scale", [0.05, 1 / 3, 4.0, 9.0])
def test_scaling_the_logits_scales_the_temperature(scale: float) -> None:
    log_p, labels = random_case(4)
    expected = scale * fit_temperature(log_p, labels)
    assert fit_temperature(calibrated(log_p, 1 / scale), labels) == pytest.approx(expected, rel=1e-9)


def test_the_temperature_fitted_to_calibrated_predictions_is_one() -> None:
    log_p, labels = random_case(5)
    again = fit_temperature(calibrated(log_p, fit_temperature(log_p, labels)), labels)
    assert again == pytest.approx(1, rel=1e-9)


def test_logits_and_their_log_probabilities_have_the_same_temperature() -> None:
    log_p, labels = random_case(6)
    shift = torch.linspace(-50, 50, len(log_p), dtype=torch.float64)[:, None]
    assert fit_temperature(log_p + shift, labels) == pytest.approx(fit_temperature(log_p, labels), rel=1e-9)


def test_the_temperature_of_float32_predictions_is_fitted_in_float64() -> None:
    log_p, labels = random_case(7)
    assert fit_temperature(log_p.float(), labels) == fit_temperature(log_p.float().double(), labels)


# --- no minimum within the bounds ---


def test_without_a_misclassified_image_the_temperature_is_set_to_one_and_marked_as_not_identified() -> None:
    log_p, _ = random_case(8)
    assert fit(log_p, log_p.argmax(-1)) == (1.0, False)


def test_calibrated_nll_equals_nll_if_all_validation_images_are_classified_correctly() -> None:
    validation, test, labels = log_of([0.9, 0.1], [0.2, 0.8]), log_of([0.9, 0.1], [0.6, 0.4]), torch.tensor([0, 1])
    assert fit(validation, labels) == (1.0, False)
    plain = -(math.log(0.9) + math.log(0.4)) / 2  # 0.51; at a temperature of 0.001 it would be 202.7
    assert calibrated_nll(test, labels, validation, labels) == pytest.approx(plain)


def test_one_misclassified_image_identifies_the_temperature() -> None:
    log_p, _ = random_case(8)
    labels = log_p.argmax(-1)
    labels[0] = log_p[0].argmin()
    temperature, identified = fit(log_p, labels)
    assert identified
    assert 0.05 < temperature < 20


@pytest.mark.parametrize("gap", [1.0, 1e5])
def test_the_temperature_is_the_upper_bound_if_every_label_is_the_least_likely_class(gap: float) -> None:
    log_p = torch.tensor([[gap, 0.0], [0.0, gap]], dtype=torch.float64).log_softmax(-1)
    assert fit(log_p, torch.tensor([1, 0])) == (20.0, False)


@pytest.mark.parametrize(("scale", "bound"), [(1e-3, 0.05), (1e3, 20.0)])
def test_the_temperature_stays_within_its_bounds_at_any_scale_of_the_logits(scale: float, bound: float) -> None:
    log_p, labels = random_case(4)
    assert fit(calibrated(log_p, 1 / scale), labels) == (bound, False)


@pytest.mark.parametrize(
    ("log_p", "labels"),
    [
        (log_of([0.5, 0.5], [0.5, 0.5]), [0, 1]),
        (log_of([1.0, 0.0], [0.0, 1.0]), [0, 1]),
        (log_of([1.0, 0.0], [0.0, 1.0]), [1, 0]),
        (log_of([1.0], [1.0]), [0, 0]),
    ],
    ids=["uniform", "certain and right", "certain and wrong", "one class"],
)
def test_the_temperature_is_one_if_nll_does_not_depend_on_it(log_p: Tensor, labels: list[int]) -> None:
    assert fit(log_p, torch.tensor(labels)) == (1.0, False)


def test_temperature_and_metrics_of_nan_logits_are_nan() -> None:
    log_p = P.log().clone()
    log_p[2, 1] = torch.nan
    assert math.isnan(fit_temperature(log_p, Y))
    assert math.isnan(calibrated_nll(P.log(), Y, log_p, Y))


# --- zero probabilities ---


def test_classes_with_probability_zero_do_not_change_the_temperature() -> None:
    log_p, labels = random_case(9)
    ruled_out = torch.full((len(log_p), 2), -torch.inf, dtype=torch.float64)
    assert fit_temperature(torch.cat([log_p, ruled_out], -1), labels) == fit_temperature(log_p, labels)


def test_an_image_whose_label_has_probability_zero_does_not_influence_the_temperature() -> None:
    log_p = torch.cat([P.log(), log_of([1.0, 0.0])])
    assert fit_temperature(log_p, torch.cat([Y, torch.tensor([1])])) == fit_temperature(P.log(), Y)


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1e3])
def test_a_probability_of_zero_stays_zero_at_every_temperature(temperature: float) -> None:
    log_q = calibrated(log_of([0.8, 0.0, 0.2]), temperature)
    assert log_q[0, 1] == -torch.inf
    assert float(log_q.exp().sum()) == pytest.approx(1)


# --- metrics after calibration ---


def test_calibrated_probabilities_are_the_normalized_powers_of_the_probabilities() -> None:
    power = P ** (1 / 2.5)
    assert_close(calibrated(P.log(), 2.5).exp(), power / power.sum(-1, keepdim=True))


def test_calibration_at_temperature_one_has_no_effect() -> None:
    log_p, _ = random_case(10)
    assert_close(calibrated(log_p, 1.0), log_p)


@pytest.mark.parametrize("temperature", [0.05, 0.9, 7.0])
def test_accuracy_does_not_depend_on_the_temperature(temperature: float) -> None:
    log_p, labels = random_case(11)
    assert accuracy(calibrated(log_p, temperature), labels) == accuracy(log_p, labels)


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_nll_of_the_images_used_for_fitting_is_minimal_at_the_fitted_temperature(truth: float) -> None:
    log_p, labels = random_case(12, truth)
    least = calibrated_nll(log_p, labels, log_p, labels)
    temperature = fit_temperature(log_p, labels)
    for other in (1.0, 0.99 * temperature, 1.01 * temperature):
        assert least <= naive_nll(log_p, labels, other) + 1e-12


def test_calibrated_nll_uses_the_temperature_that_was_fitted_on_separate_images() -> None:
    log_p, labels = random_case(13)
    fit_log_p, fit_labels = random_case(14, temperature=4.0)
    expected = naive_nll(log_p, labels, fit_temperature(fit_log_p, fit_labels))
    assert calibrated_nll(log_p, labels, fit_log_p, fit_labels) == pytest.approx(expected, abs=1e-12)
    assert expected > nll(log_p, labels) * 1.01  # the two temperatures cannot be confused


def test_calibrated_metrics_are_those_of_the_tempered_probabilities() -> None:
    log_p, labels = random_case(15)
    plain = all_metrics((log_p / 1.7).log_softmax(-1), labels)
    expected = {f"c{name}": plain[name] for name in ("nll", "brier", "ece")}
    assert calibrated_metrics(log_p, labels, 1.7) == pytest.approx(expected, abs=1e-12)


def test_calibrated_ece_agrees_with_torchmetrics() -> None:
    log_p, labels = random_case(16)
    oracle = multiclass_calibration_error((log_p / 1.7).softmax(-1), labels, num_classes=7, n_bins=15, norm="l1")
    assert calibrated_metrics(log_p, labels, 1.7)["cece"] == pytest.approx(float(oracle), abs=1e-6)


def test_calibration_lowers_the_calibration_error_of_an_overconfident_network() -> None:
    log_p, labels = random_case(17, temperature=2.0, images=5000)
    fitted = calibrated_metrics(log_p, labels, fit_temperature(*random_case(18, temperature=2.0, images=5000)))
    plain = all_metrics(log_p, labels)
    assert fitted["cece"] < plain["ece"] / 3
    assert fitted["cnll"] < plain["nll"]
    assert fitted["cbrier"] < plain["brier"]
