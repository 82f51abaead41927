"""Contract for optimizers: all parameters use the learning rate of their group, and runs resume exactly."""

import io
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ensdistill.methods.optimizers import OptimizerPiece
from ensdistill.methods.recipe import Training, set_lr
from ensdistill.methods.students import BatchEnsemble
from ensdistill.methods.students.base import Student
from ensdistill.testing.contract import Contract
from ensdistill.testing.toy import toy_data, toy_student

DATA = toy_data()


def start(piece: OptimizerPiece) -> tuple[Student, Optimizer]:
    """Returns a student with two subnetworks, and its optimizer."""
    student = toy_student(BatchEnsemble(subnetworks=2), DATA)
    return student, Training(optimizer=piece).new_optimizer(student)


def move(student: Student, optimizer: Optimizer, first: int, steps: int, lr: float = 0.01) -> None:
    """Makes optimizer steps with random gradients; the gradients of step n depend only on n."""
    for n in range(first, first + steps):
        generator = torch.Generator().manual_seed(n)
        set_lr(optimizer, lr)
        for p in student.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def weights(student: Student) -> list[Tensor]:
    """Returns copies of all parameters."""
    return [p.detach().clone() for p in student.parameters()]


class OptimizerContract(Contract):
    """Tests for optimizers."""

    def test_every_parameter_is_in_one_group(self, piece: Any) -> None:
        student, optimizer = start(piece)
        assert isinstance(optimizer, Optimizer)
        ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(ids) == sorted(id(p) for p in student.parameters())

    def test_every_parameter_changes_and_stays_finite(self, piece: Any) -> None:
        student, optimizer = start(piece)
        before = weights(student)
        move(student, optimizer, 0, 3)
        assert all(not torch.equal(p, old) for p, old in zip(student.parameters(), before, strict=True))
        assert all(p.isfinite().all() for p in student.parameters())

    def test_step_with_zero_learning_rate_changes_no_parameter(self, piece: Any) -> None:
        student, optimizer = start(piece)
        before = weights(student)
        move(student, optimizer, 0, 2, lr=0.0)
        assert all(torch.equal(p, old) for p, old in zip(student.parameters(), before, strict=True))

    def test_state_resumes_bit_for_bit(self, piece: Any) -> None:
        whole, optimizer = start(piece)
        move(whole, optimizer, 0, 4)
        part, optimizer = start(piece)
        move(part, optimizer, 0, 2)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        resumed, restored = part, Training(optimizer=piece).new_optimizer(part)
        restored.load_state_dict(torch.load(file, weights_only=True))
        move(resumed, restored, 2, 2)
        assert all(torch.equal(p, q) for p, q in zip(resumed.parameters(), whole.parameters(), strict=True))
