"""Averages agree with the cases of METHODS section 6 and with values computed by hand."""

import copy
import random
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ensdistill.methods.averaging import Ema, GreedySoup, Lawa, NoAveraging, Swa, WeightAverage
from ensdistill.methods.students import Single
from ensdistill.methods.students.base import Student

VALUES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def scalar_student(dtype: torch.dtype = torch.float64) -> Student:
    """Returns a student with a single weight."""
    return Single()(nn.Linear(1, 1, bias=False, dtype=dtype))


def show(average: WeightAverage, student: Student, values: list[float], progresses: list[float] | None = None) -> None:
    """Updates the average with the student at each of these weights."""
    for n, value in enumerate(values):
        with torch.no_grad():
            student.network.weight.fill_(value)
        average.update(student, progresses[n] if progresses else (n + 1) / len(values))


def weight(average: WeightAverage, student: Student) -> float:
    return average.averaged(student).network.weight.item()


@pytest.mark.parametrize(("debias", "expected"), [(False, 6.301310), (True, 12.314071)])
def test_ema_of_six_weights_equals_the_hand_computed_value(debias: bool, expected: float) -> None:
    student = scalar_student()
    average = Ema(decay=0.9, debias=debias)(student)
    show(average, student, VALUES)
    assert weight(average, student) == pytest.approx(expected, abs=1e-5)


def test_the_ema_of_equal_weights_equals_these_weights() -> None:
    student = scalar_student()
    average = Ema(decay=0.97)(student)
    show(average, student, [3.0] * 20)
    assert weight(average, student) == pytest.approx(3.0, abs=1e-12)


def test_the_ema_with_decay_zero_is_the_last_weight() -> None:
    student = scalar_student()
    average = Ema(decay=0.0)(student)
    show(average, student, VALUES)
    assert weight(average, student) == 32.0


def test_ema_ignores_the_weights_before_its_first_update() -> None:
    student = scalar_student()
    with torch.no_grad():
        student.network.weight.fill_(1e6)
    average = Ema(decay=0.9)(student)
    show(average, student, [2.0])
    assert weight(average, student) == 2.0


@pytest.mark.parametrize("decay", [0.9999, 0.999999, 0.99999999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_debiased_ema_of_two_weights_with_decay_close_to_one_is_nearly_their_mean(
    decay: float, dtype: torch.dtype
) -> None:
    student = scalar_student(dtype)
    average = Ema(decay=decay)(student)
    show(average, student, [1.0, 2.0])
    assert weight(average, student) == pytest.approx((decay * 1 + 2) / (1 + decay), abs=1e-5)


def test_averaging_starts_after_the_given_share_of_training() -> None:
    student = scalar_student()
    average = Ema(decay=0.9, debias=False, start=0.5)(student)
    show(average, student, VALUES)  # 4/6, 5/6 and 6/6 are above one half: 8, 16, 32
    assert weight(average, student) == pytest.approx(0.9 * (0.9 * 8 + 0.1 * 16) + 0.1 * 32)


def test_before_averaging_starts_the_average_is_the_student_itself() -> None:
    student = scalar_student()
    average = Ema(start=0.5)(student)
    show(average, student, VALUES[:2], [0.25, 0.5])
    assert average.averaged(student) is student


def test_buffers_are_copied_from_the_student() -> None:
    student = Single()(nn.BatchNorm1d(1))
    average = Ema(decay=0.9)(student)
    for value in (1.0, 2.0, 7.0):
        student.network.running_mean.fill_(value)
        average.update(student, 1.0)
    assert average.averaged(student).network.running_mean.item() == 7.0


@pytest.mark.parametrize("seen", range(4))
def test_ema_resumes_exactly_from_a_saved_state(seen: int) -> None:
    student = scalar_student()
    whole = Ema(decay=0.9)(student)
    show(whole, student, VALUES)

    student = scalar_student()
    first = Ema(decay=0.9)(student)
    show(first, student, VALUES[:seen])
    state = copy.deepcopy(first.state_dict())
    other = scalar_student()
    second = Ema(decay=0.9)(other)
    second.load_state_dict(state)
    show(second, other, VALUES[seen:])
    assert weight(second, other) == weight(whole, student)


def test_without_averaging_the_average_is_the_student_itself() -> None:
    student = scalar_student()
    average = NoAveraging()(student)
    show(average, student, VALUES)
    assert average.averaged(student) is student


def test_without_averaging_the_state_of_the_average_is_empty() -> None:
    average = NoAveraging()(scalar_student())
    average.load_state_dict(average.state_dict())
    assert average.state_dict() == {}


def test_the_average_of_a_network_equals_the_average_of_each_parameter() -> None:
    generator = torch.Generator().manual_seed(0)
    student = Single()(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double())
    average = Ema(decay=0.8, debias=True)(student)
    history: list[dict[str, torch.Tensor]] = []
    for _ in range(5):
        with torch.no_grad():
            for p in student.parameters():
                p.normal_(generator=generator)
        average.update(student, 1.0)
        history.append({name: p.detach().clone() for name, p in student.named_parameters()})
    shares = [0.8 ** (4 - n) for n in range(5)]
    for name, p in average.averaged(student).named_parameters():
        expected = sum(share * past[name] for share, past in zip(shares, history, strict=True)) / sum(shares)
        assert_close(p.detach(), expected, atol=1e-6, rtol=1e-6)


# --- at the end of epochs ---


def no_judge(student: Student) -> dict[str, float]:
    raise AssertionError("nobody asked for the validation metrics")


def end_epochs(
    average: WeightAverage,
    student: Student,
    values: list[float],
    judge: Callable[[Student], dict[str, float]] = no_judge,
) -> None:
    """Runs epochs of two steps each that end at these weights."""
    for n, value in enumerate(values):
        show(average, student, [-100.0, value], [(n + 0.5) / len(values), (n + 1) / len(values)])
        average.epoch_ended(student, (n + 1) / len(values), judge)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Swa(start=0.0), 10.5),
        (Swa(start=2 / 6), 15.0),
        (Swa(start=0.9), 32.0),
        (Lawa(window=3), 18.666667),
        (Lawa(window=1), 32.0),
        (Lawa(window=6), 10.5),
        (Lawa(window=100), 10.5),
    ],
    ids=repr,
)
def test_the_mean_of_weights_at_the_ends_of_epochs_equals_the_hand_computed_value(
    settings: Swa | Lawa, expected: float
) -> None:
    student = scalar_student()
    average = settings(student)
    end_epochs(average, student, VALUES)
    assert weight(average, student) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("settings", [Swa(start=0.5), Lawa(window=3), GreedySoup()], ids=repr)
def test_before_the_end_of_the_first_epoch_the_average_is_the_student_itself(settings: Swa | Lawa | GreedySoup) -> None:
    student = scalar_student()
    average = settings(student)
    show(average, student, VALUES[:2], [0.2, 0.4])
    if isinstance(settings, Swa):
        average.epoch_ended(student, 0.5, no_judge)
    assert average.averaged(student) is student


@pytest.mark.parametrize("settings", [Swa(start=0.0), Lawa(window=3)], ids=repr)
def test_steps_within_an_epoch_do_not_affect_epoch_averages(settings: Swa | Lawa) -> None:
    student = scalar_student()
    average = settings(student)
    end_epochs(average, student, VALUES[:2])
    before = weight(average, student)
    show(average, student, [1e6, -1e6])
    assert weight(average, student) == before


def test_the_mean_of_epochs_includes_batchnorm_statistics_and_the_last_batch_counter() -> None:
    student = Single()(nn.BatchNorm1d(1))
    average = Lawa(window=2)(student)
    for n, value in enumerate((1.0, 2.0, 7.0)):
        student.network.running_mean.fill_(value)
        student.network.num_batches_tracked.fill_(n)
        average.epoch_ended(student, 1.0, no_judge)
    averaged = average.averaged(student).network
    assert averaged.running_mean.item() == 4.5
    assert averaged.num_batches_tracked.item() == 2
    assert averaged.num_batches_tracked.dtype == torch.int64


def lawa_of_steps(values: list[float], **settings: float) -> float:
    """Returns the average after one step at each of these weights, in one epoch."""
    student = scalar_student()
    average = Lawa(**settings)(student)
    show(average, student, values)
    return weight(average, student)


@pytest.mark.parametrize(
    ("steps", "window", "fraction", "expected"),
    [
        (12, 3, 0.5, 10.0),  # every second step of the last six: 8, 10, 12
        (12, 6, 0.5, 9.5),  # every step of the last six
        (12, 1, 0.5, 12.0),
        (12, 3, 1.0, 8.0),  # 4, 8, 12
        (12, 4, 0.01, 10.5),  # spacing below one step: the last four steps
        (10, 3, 0.5, 26 / 3),  # spacing of 5/3 steps: the first steps at or after 6.67, 8.33 and 10 are 7, 9 and 10
    ],
)
def test_a_window_fraction_gives_the_mean_of_evenly_spaced_steps(
    steps: int, window: int, fraction: float, expected: float
) -> None:
    found = lawa_of_steps([float(n + 1) for n in range(steps)], window=window, window_fraction=fraction)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("steps", [7, 60, 997, 10007])
def test_rounding_does_not_change_a_spacing_that_is_a_whole_number_of_steps(steps: int) -> None:
    found = lawa_of_steps([float(n + 1) for n in range(3 * steps)], window=3, window_fraction=1.0)
    assert found == 2.0 * steps


def test_with_a_window_fraction_the_ends_of_epochs_do_not_affect_the_average() -> None:
    student = scalar_student()
    average = Lawa(window=2, window_fraction=1.0)(student)
    end_epochs(average, student, VALUES)  # steps 6 and 12 of 12, the ends of epochs 3 and 6
    assert weight(average, student) == 18.0


@pytest.mark.parametrize("seen", range(6))
def test_an_average_with_a_window_fraction_resumes_exactly_from_a_saved_state(seen: int) -> None:
    settings, places = Lawa(window=2, window_fraction=0.7), [(n + 1) / 6 for n in range(6)]
    student = scalar_student()
    first, second = settings(student), settings(student)
    show(first, student, VALUES[:seen], places[:seen])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    show(second, student, VALUES[seen:], places[seen:])
    assert weight(second, student) == 10.0  # spacing of 0.35 of the training: steps 3 and 5, at 0.5 and 0.83


# --- soups ---


def judge_by(score: Callable[[float], float]) -> Callable[[Student], dict[str, float]]:
    """Returns a validator: accuracy is a function of the single weight, and the NLL is its negative."""

    def judge(student: Student) -> dict[str, float]:
        value = score(student.network.weight.item())
        return {"accuracy": value, "nll": -value}

    return judge


def soup(score: Callable[[float], float], values: list[float], **settings: int | str) -> float:
    student = scalar_student()
    average = GreedySoup(**settings)(student)
    end_epochs(average, student, values, judge_by(score))
    return weight(average, student)


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_the_soup_includes_epochs_that_improve_it_and_excludes_others(metric: str) -> None:
    # Best at 10. In order: 8 (off by 2), 13 (3): mean 10.5, kept; 6 (4): mean 9, left out; 20: mean 13.67, left out.
    assert soup(lambda w: -abs(w - 10), [20.0, 6, 13, 8], metric=metric) == pytest.approx(10.5)


def test_the_soup_tries_candidates_from_the_best_to_the_worst() -> None:
    # Starting from 10 (best at 10.1), 12 is left out: mean 11. In order of time, 8 and 12 would come first.
    assert soup(lambda w: -abs(w - 10.1), [8.0, 12, 10]) == 10


def test_the_soup_includes_epochs_that_do_not_change_its_score() -> None:
    assert soup(lambda w: 1.0, [1.0, 2, 6]) == pytest.approx(3)


def test_the_earliest_of_equally_good_epochs_is_kept() -> None:
    assert soup(lambda w: 1.0, [1.0, 2, 6], max_candidates=1) == 1
    assert soup(lambda w: 1.0, [1.0, 2, 6], max_candidates=2) == 1.5


def test_the_soup_of_one_candidate_is_the_best_epoch() -> None:
    assert soup(lambda w: -abs(w - 9), VALUES, max_candidates=1) == 8


def test_an_epoch_that_does_not_become_a_candidate_is_evaluated_only_once() -> None:
    student = scalar_student()
    average = GreedySoup(max_candidates=2)(student)
    end_epochs(average, student, [5.0, 4], judge_by(lambda w: w))
    looks: list[float] = []
    average.epoch_ended(scalar_student(), 1.0, lambda s: looks.append(0.0) or {"accuracy": 1.0, "nll": 0.0})
    assert len(looks) == 1
    assert weight(average, student) == 5


def greedy(score: Callable[[float], float], values: list[float], candidates: int) -> float:
    """Returns the soup of recipe 1 in the paper, computed from all epochs together."""
    ordered = sorted(values, key=score, reverse=True)[:candidates]  # stable sort
    chosen, best = [ordered[0]], score(ordered[0])
    for value in ordered[1:]:
        tried = score(sum([*chosen, value]) / (len(chosen) + 1))
        if tried >= best:
            chosen, best = [*chosen, value], tried
    return sum(chosen) / len(chosen)


@pytest.mark.parametrize("digits", [0, 6])  # rounded to integers, many epochs are equally good
def test_the_soup_equals_the_greedy_recipe_and_is_never_worse_than_the_best_epoch(digits: int) -> None:
    chance = random.Random(0)
    for _ in range(30):
        best_at, candidates = chance.uniform(-5, 5), chance.randint(1, 6)
        values = [float(chance.randint(-6, 6)) for _ in range(chance.randint(1, 9))]

        def score(w: float, best_at: float = best_at) -> float:
            return round(-((round(w, 9) - best_at) ** 2), digits)

        found = soup(score, values, max_candidates=candidates)
        assert found == pytest.approx(greedy(score, values, candidates))
        assert score(found) >= max(map(score, values))


@pytest.mark.parametrize(
    "settings",
    [Swa(start=0.0), Lawa(window=2), GreedySoup(max_candidates=2)],
    ids=repr,
)
@pytest.mark.parametrize("seen", range(4))
def test_epoch_averages_resume_exactly_from_a_saved_state(settings: Swa | Lawa | GreedySoup, seen: int) -> None:
    judge = judge_by(lambda w: -abs(w - 9))
    student = scalar_student()
    whole = settings(student)
    end_epochs(whole, student, VALUES, judge)

    student = scalar_student()
    first = settings(student)
    for n, value in enumerate(VALUES):
        if n == seen:
            state = copy.deepcopy(first.state_dict())
            student = scalar_student()
            first = settings(student)
            first.load_state_dict(state)
        show(first, student, [value], [(n + 1) / 6])
        first.epoch_ended(student, (n + 1) / 6, judge)
    assert weight(first, student) == weight(whole, student)


@pytest.mark.parametrize("settings", [Ema(decay=0.9), Swa(start=0.0), Lawa(window=3), GreedySoup()], ids=repr)
def test_averages_share_no_memory_with_the_student(settings: Ema | Swa | Lawa | GreedySoup) -> None:
    student = scalar_student()
    average = settings(student)
    end_epochs(average, student, VALUES, judge_by(lambda w: w))
    before = weight(average, student)
    with torch.no_grad():
        student.network.weight.fill_(-1)
    assert weight(average, student) == before
    with torch.no_grad():
        average.averaged(student).network.weight.fill_(5)
    assert student.network.weight.item() == -1
