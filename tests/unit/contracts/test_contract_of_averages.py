"""What every average promises: a student to evaluate, and the one in training left alone."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensdistill.methods.averaging import Averaging, WeightAverage
from ensdistill.methods.students import BatchEnsemble
from ensdistill.methods.students.base import Student
from tests.unit.contracts.contract_pieces import toy_data, toy_student, variants

every_average = pytest.mark.parametrize("settings", variants(Averaging))
DATA = toy_data()


def student() -> Student:
    return toy_student(BatchEnsemble(subnetworks=2), DATA)


def move(pupil: Student, average: WeightAverage, steps: int, total: int = 6, first: int = 0) -> None:
    """Random steps, each shown to the average as an epoch of its own; step n is the same however the walk is cut."""
    for n in range(first, first + steps):
        generator = torch.Generator().manual_seed(n)
        with torch.no_grad():
            for p in pupil.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
        average.update(pupil, (n + 1) / total)
        average.epoch_ended(pupil, (n + 1) / total, judge)


def judge(pupil: Student) -> dict[str, float]:
    """Validation metrics that favor the shortest weights."""
    length = float(sum(p.detach().square().sum() for p in pupil.parameters()))
    return {"accuracy": -length, "nll": length}


def state(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@every_average
def test_average_is_a_student_of_the_same_kind(settings: Any) -> None:
    pupil = student()
    average = settings(pupil)
    for steps in (0, 1, 3):
        move(pupil, average, steps)
        averaged = average.averaged(pupil)
        assert isinstance(averaged, Student)
        assert len(averaged) == len(pupil)
        assert averaged(DATA.train[slice(0, 3)][0]).isfinite().all()
        assert equal(
            {n: t.new_zeros(()) for n, t in averaged.state_dict().items()},
            {n: t.new_zeros(()) for n, t in pupil.state_dict().items()},
        )


@every_average
def test_asking_for_the_average_changes_nothing_of_the_student_in_training(settings: Any) -> None:
    pupil = student()
    average = settings(pupil)
    move(pupil, average, 3)
    pupil(DATA.train[slice(0, 6)][0]).sum().backward()
    before, gradients = state(pupil), [p.grad.clone() for p in pupil.parameters()]
    average.averaged(pupil).merged()
    average.averaged(pupil)
    assert equal(state(pupil), before)
    assert all(torch.equal(p.grad, g) for p, g in zip(pupil.parameters(), gradients, strict=True))
    assert all(module.training for module in pupil.modules())


@every_average
def test_updating_changes_nothing_of_the_student_in_training(settings: Any) -> None:
    pupil = student()
    average = settings(pupil)
    before = state(pupil)
    for n in range(4):
        average.update(pupil, (n + 1) / 4)
        average.epoch_ended(pupil, (n + 1) / 4, judge)
    assert equal(state(pupil), before)


@every_average
def test_average_of_a_student_that_stands_still_is_that_student(settings: Any) -> None:
    pupil = student()
    average = settings(pupil)
    for n in range(4):
        average.update(pupil, (n + 1) / 4)
        average.epoch_ended(pupil, (n + 1) / 4, judge)
    for mine, its in zip(average.averaged(pupil).parameters(), pupil.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


@every_average
def test_average_lies_between_the_extremes_of_the_weights_seen(settings: Any) -> None:
    pupil = student()
    average = settings(pupil)
    seen = []
    for n in range(5):
        move(pupil, average, 1, first=n)
        seen.append(torch.cat([p.detach().flatten().clone() for p in pupil.parameters()]))
    weights = torch.cat([p.detach().flatten() for p in average.averaged(pupil).parameters()])
    assert (weights <= torch.stack(seen).amax(0) + 1e-6).all()
    assert (weights >= torch.stack(seen).amin(0) - 1e-6).all()


@every_average
@pytest.mark.parametrize("cut", [0, 1, 4])
def test_saved_state_goes_on_exactly(settings: Any, cut: int) -> None:
    pupil = student()
    whole = settings(pupil)
    move(pupil, whole, 6)
    expected = state(whole.averaged(pupil))

    pupil = student()
    first = settings(pupil)
    move(pupil, first, cut)
    file = io.BytesIO()
    torch.save({"average": first.state_dict(), "student": pupil.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = student()
    second = settings(resumed)
    resumed.load_state_dict(saved["student"])
    second.load_state_dict(saved["average"])
    move(resumed, second, 6 - cut, first=cut)
    assert equal(state(second.averaged(resumed)), expected)


@every_average
def test_bfloat16_weights_give_a_bfloat16_average(settings: Any) -> None:
    pupil = student().bfloat16()
    average = settings(pupil)
    move(pupil, average, 4)
    for p in average.averaged(pupil).parameters():
        assert p.dtype == torch.bfloat16
        assert p.isfinite().all()


@every_average
def test_every_average_says_whether_batchnorm_is_refreshed(settings: Any) -> None:
    assert isinstance(settings.refresh_batchnorm, bool)
