"""The fourth axis against the cases of METHODS section 6 and arithmetic by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ensdistill.averaging import Average, Ema, NoAveraging
from ensdistill.students import Single
from ensdistill.students.base import Student

VALUES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def scalar_student(dtype: torch.dtype = torch.float64) -> Student:
    """A student of one weight."""
    return Single()(nn.Linear(1, 1, bias=False, dtype=dtype))


def show(average: Average, student: Student, values: list[float], progresses: list[float] | None = None) -> None:
    """Lets the average see the student at each of these weights."""
    for n, value in enumerate(values):
        with torch.no_grad():
            student.network.weight.fill_(value)
        average.update(student, progresses[n] if progresses else (n + 1) / len(values))


def weight(average: Average, student: Student) -> float:
    return average.averaged(student).network.weight.item()


@pytest.mark.parametrize(("debias", "expected"), [(False, 6.301310), (True, 12.314071)])
def test_ema_of_six_weights_is_the_hand_constant(debias: bool, expected: float) -> None:
    student = scalar_student()
    average = Ema(decay=0.9, debias=debias)(student)
    show(average, student, VALUES)
    assert weight(average, student) == pytest.approx(expected, abs=1e-5)


def test_ema_of_equal_weights_is_that_weight() -> None:
    student = scalar_student()
    average = Ema(decay=0.97)(student)
    show(average, student, [3.0] * 20)
    assert weight(average, student) == pytest.approx(3.0, abs=1e-12)


def test_ema_without_decay_is_the_last_weight() -> None:
    student = scalar_student()
    average = Ema(decay=0.0)(student)
    show(average, student, VALUES)
    assert weight(average, student) == 32.0


def test_ema_forgets_the_weights_before_its_first_update() -> None:
    student = scalar_student()
    with torch.no_grad():
        student.network.weight.fill_(1e6)
    average = Ema(decay=0.9)(student)
    show(average, student, [2.0])
    assert weight(average, student) == 2.0


@pytest.mark.parametrize("decay", [0.9999, 0.999999, 0.99999999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_debiased_ema_of_two_weights_with_decay_near_one_is_nearly_their_mean(decay: float, dtype: torch.dtype) -> None:
    student = scalar_student(dtype)
    average = Ema(decay=decay)(student)
    show(average, student, [1.0, 2.0])
    assert weight(average, student) == pytest.approx((decay * 1 + 2) / (1 + decay), abs=1e-5)


def test_averaging_starts_after_its_share_of_the_training() -> None:
    student = scalar_student()
    average = Ema(decay=0.9, debias=False, start=0.5)(student)
    show(average, student, VALUES)  # 4/6, 5/6 and 6/6 are beyond one half: 8, 16, 32
    assert weight(average, student) == pytest.approx(0.9 * (0.9 * 8 + 0.1 * 16) + 0.1 * 32)


def test_before_its_start_the_average_is_the_student_itself() -> None:
    student = scalar_student()
    average = Ema(start=0.5)(student)
    show(average, student, VALUES[:2], [0.25, 0.5])
    assert average.averaged(student) is student


def test_buffers_follow_the_student() -> None:
    student = Single()(nn.BatchNorm1d(1))
    average = Ema(decay=0.9)(student)
    for value in (1.0, 2.0, 7.0):
        student.network.running_mean.fill_(value)
        average.update(student, 1.0)
    assert average.averaged(student).network.running_mean.item() == 7.0


@pytest.mark.parametrize("seen", range(4))
def test_ema_goes_on_exactly_from_its_saved_state(seen: int) -> None:
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


def test_ema_does_not_share_memory_with_the_student() -> None:
    student = scalar_student()
    average = Ema(decay=0.9)(student)
    show(average, student, VALUES)
    before = weight(average, student)
    with torch.no_grad():
        student.network.weight.fill_(-1)
    assert weight(average, student) == before
    with torch.no_grad():
        average.averaged(student).network.weight.fill_(5)
    assert student.network.weight.item() == -1


def test_no_averaging_is_the_student_itself() -> None:
    student = scalar_student()
    average = NoAveraging()(student)
    show(average, student, VALUES)
    assert average.averaged(student) is student


def test_no_averaging_has_an_empty_state() -> None:
    average = NoAveraging()(scalar_student())
    average.load_state_dict(average.state_dict())
    assert average.state_dict() == {}


def test_average_of_a_whole_network_is_the_loop_over_its_parameters() -> None:
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
