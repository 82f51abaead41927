"""Contract for averages: an average returns a student for evaluation and leaves the trained student unchanged."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensdistill.methods.averaging import WeightAverage
from ensdistill.methods.students import BatchEnsemble
from ensdistill.methods.students.base import Student
from ensdistill.testing.contract import Contract
from ensdistill.testing.toy import toy_data, toy_student

DATA = toy_data()


def student() -> Student:
    """Returns a new student with two subnetworks."""
    return toy_student(BatchEnsemble(subnetworks=2), DATA)


def move(pupil: Student, average: WeightAverage, steps: int, total: int = 6, first: int = 0) -> None:
    """Applies random steps to a student; updates the average after each step, as if each step were an epoch.

    Step n depends only on n, so a sequence of steps can be split across several calls.

    Args:
        pupil: The student to change in place.
        average: Average of the student.
        steps: Number of steps to apply.
        total: Total number of training steps.
        first: Index of the first step.
    """
    for n in range(first, first + steps):
        generator = torch.Generator().manual_seed(n)
        with torch.no_grad():
            for p in pupil.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
        average.update(pupil, (n + 1) / total)
        average.epoch_ended(pupil, (n + 1) / total, judge)


def judge(pupil: Student) -> dict[str, float]:
    """Returns validation metrics that are better for weights with a smaller norm."""
    length = float(sum(p.detach().square().sum() for p in pupil.parameters()))
    return {"accuracy": -length, "nll": length}


def state(module: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of the state dict."""
    return copy.deepcopy(module.state_dict())


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Returns whether two state dicts are identical."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def gradients_of(pupil: Student) -> list[Tensor]:
    """Returns copies of a student's gradients."""
    return [p.grad.clone() for p in pupil.parameters() if p.grad is not None]


class AveragingContract(Contract):
    """Tests for averages."""

    def test_average_is_a_student_of_the_same_kind(self, piece: Any) -> None:
        pupil = student()
        average = piece(pupil)
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

    def test_computing_the_average_does_not_change_the_trained_student(self, piece: Any) -> None:
        pupil = student()
        average = piece(pupil)
        move(pupil, average, 3)
        pupil(DATA.train[slice(0, 6)][0]).sum().backward()
        before, gradients = state(pupil), gradients_of(pupil)
        average.averaged(pupil).merged()
        average.averaged(pupil)
        assert equal(state(pupil), before)
        assert all(map(torch.equal, gradients_of(pupil), gradients))
        assert all(module.training for module in pupil.modules())

    def test_updating_the_average_does_not_change_the_trained_student(self, piece: Any) -> None:
        pupil = student()
        average = piece(pupil)
        before = state(pupil)
        for n in range(4):
            average.update(pupil, (n + 1) / 4)
            average.epoch_ended(pupil, (n + 1) / 4, judge)
        assert equal(state(pupil), before)

    def test_average_of_constant_weights_equals_these_weights(self, piece: Any) -> None:
        pupil = student()
        average = piece(pupil)
        for n in range(4):
            average.update(pupil, (n + 1) / 4)
            average.epoch_ended(pupil, (n + 1) / 4, judge)
        for mine, its in zip(average.averaged(pupil).parameters(), pupil.parameters(), strict=True):
            torch.testing.assert_close(mine, its)

    def test_average_is_within_the_range_of_the_previous_weights(self, piece: Any) -> None:
        pupil = student()
        average = piece(pupil)
        seen = []
        for n in range(5):
            move(pupil, average, 1, first=n)
            seen.append(torch.cat([p.detach().flatten().clone() for p in pupil.parameters()]))
        weights = torch.cat([p.detach().flatten() for p in average.averaged(pupil).parameters()])
        assert (weights <= torch.stack(seen).amax(0) + 1e-6).all()
        assert (weights >= torch.stack(seen).amin(0) - 1e-6).all()

    @pytest.mark.parametrize("cut", [0, 1, 4])
    def test_saved_state_resumes_exactly(self, piece: Any, cut: int) -> None:
        pupil = student()
        whole = piece(pupil)
        move(pupil, whole, 6)
        expected = state(whole.averaged(pupil))

        pupil = student()
        first = piece(pupil)
        move(pupil, first, cut)
        file = io.BytesIO()
        torch.save({"average": first.state_dict(), "student": pupil.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        resumed = student()
        second = piece(resumed)
        resumed.load_state_dict(saved["student"])
        second.load_state_dict(saved["average"])
        move(resumed, second, 6 - cut, first=cut)
        assert equal(state(second.averaged(resumed)), expected)

    def test_average_of_bfloat16_weights_is_bfloat16(self, piece: Any) -> None:
        pupil = student().bfloat16()
        average = piece(pupil)
        move(pupil, average, 4)
        for p in average.averaged(pupil).parameters():
            assert p.dtype == torch.bfloat16
            assert p.isfinite().all()

    def test_refresh_batchnorm_is_a_boolean(self, piece: Any) -> None:
        assert isinstance(piece.refresh_batchnorm, bool)
