"""Values and tick labels of plot axes."""

import math

import pytest

from ensdistill_tune.report.figures.axes import (
    Scale,
    in_digits,
    linear_ticks,
    log_ticks,
    place,
    setting_axis,
    setting_ticks,
)
from ensdistill_tune.search.hyperparameter import Hyperparameter


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0008, 120, [0.001, 0.01, 0.1, 1, 10, 100]),
        (0.09, 0.6, [0.1, 0.2, 0.5]),
        (0.105, 0.19, [0.125, 0.15, 0.175]),
        (1, 10, [1, 2, 5, 10]),
    ],
)
def test_ticks_of_logarithmic_axes_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert set(ticks) <= set(log_ticks(low, high))
    assert all(low * 0.99 <= tick <= high * 1.01 for tick in log_ticks(low, high))


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1e6), (0.1, 0.11), (0.5, 3), (7, 70)])
def test_a_logarithmic_axis_has_two_to_seven_ticks(low: float, high: float) -> None:
    assert 2 <= len(log_ticks(low, high)) <= 7


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0.8, 0.99, [0.8, 0.85, 0.9, 0.95]), (-0.04, 0.02, [-0.04, -0.02, 0, 0.02])],
)
def test_ticks_of_linear_axes_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high) == pytest.approx(ticks)


def test_an_outlier_is_drawn_at_the_edge_of_the_plot_and_does_not_extend_the_axis() -> None:
    scale = Scale.of([0.1, 0.11, 0.12, 0.13, 50.0], log=True)
    assert scale.ends[1] < 0.2
    assert scale.clip(0.12) == 0.12
    assert 0.13 < scale.clip(50.0) < scale.ends[1]
    assert Scale.of([0.1, 0.11, 0.12, 0.13], log=True, always=[50.0]).ends[1] > 50


def test_a_trial_without_a_value_is_drawn_at_the_worse_end_of_the_axis() -> None:
    scale = Scale.of([0.8, 0.9], log=False)
    assert scale.worst("max") < 0.8 < 0.9 < scale.worst("min")


def test_logarithmic_axes_accept_missing_values_and_values_without_a_logarithm() -> None:
    assert not Scale.of([0.0, 1.0], log=True).log
    assert Scale.of([math.inf, math.nan], log=True) == Scale(0, 1, log=False)
    assert Scale.of([0.5], log=False).low < 0.5 < Scale.of([0.5], log=False).high


def test_the_position_of_a_value_is_a_fraction_of_the_axis_length() -> None:
    assert Scale(-2, 0, log=True).share(0.1) == pytest.approx(0.5)
    assert Scale(0, 2, log=False).share(0.5) == pytest.approx(0.25)


def test_choices_are_plotted_in_order_and_numbers_at_their_values() -> None:
    choice = Hyperparameter(choice=["none", "ema", "a_name_that_is_too_long"])
    assert place(choice, "ema") == 1
    assert setting_ticks(choice) == ([0, 1, 2], ["none", "ema", "a_name_that_is_to…"])
    assert place(Hyperparameter(log_uniform=[0.001, 1]), 0.02) == 0.02
    assert setting_axis(Hyperparameter(log_uniform=[0.001, 1]), "")["type"] == "log"
    assert setting_ticks(Hyperparameter(log_uniform=[0.001, 1]))[1] == ["0.001", "0.01", "0.1", "1"]
    assert setting_ticks(Hyperparameter(integer=[2, 8]))[1] == ["2", "4", "6", "8"]
    assert setting_ticks(Hyperparameter(integer=[1, 100]))[0][-1] <= 100


@pytest.mark.parametrize(
    ("number", "words"), [(0.00251, "0.00251"), (314_624, "315k"), (3e6, "3M"), (2.5e9, "2.5G"), (0.0, "0"), (12, "12")]
)
def test_numbers_are_printed_in_a_short_form(number: float, words: str) -> None:
    assert in_digits(number) == words
