"""Contract for students: K subnetworks that run in one call, and one plain network after merging."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from ensdistill.methods.students.base import Student
from ensdistill.testing.contract import Contract
from ensdistill.testing.toy import CLASSES, toy_data, toy_student

DATA = toy_data()


def images() -> Tensor:
    """Returns six images of shape (6,1,8,8) with values in [0,1]."""
    return DATA.train[slice(0, 6)][0]


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    """Returns a copy of the state dict."""
    return copy.deepcopy(module.state_dict())


def unchanged(before: dict[str, Tensor], module: torch.nn.Module) -> bool:
    """Returns whether the state of a module equals an earlier copy."""
    return all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


class StudentContract(Contract):
    """Tests for students."""

    def test_logits_are_finite_with_one_set_per_subnetwork(self, piece: Any) -> None:
        student = toy_student(piece, DATA)
        assert isinstance(student, Student)
        logits = student(images())
        assert logits.shape == (len(student), 6, CLASSES)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()

    def test_logits_of_a_selected_subnetwork_equal_its_slice_of_all_logits(self, piece: Any) -> None:
        student = toy_student(piece, DATA).eval()
        for k in range(len(student)):
            assert_close(student(images(), [k]), student(images())[[k]])

    def test_same_seed_gives_the_same_logits(self, piece: Any) -> None:
        first, second = (toy_student(piece, DATA, spread=False).eval() for _ in range(2))
        assert torch.equal(first(images()), second(images()))

    def test_logits_do_not_depend_on_other_images_in_evaluation_mode(self, piece: Any) -> None:
        student = toy_student(piece, DATA).eval()
        assert_close(student(images()[2:3]), student(images())[:, 2:3], atol=1e-5, rtol=1e-5)

    def test_gradient_reaches_every_parameter(self, piece: Any) -> None:
        student = toy_student(piece, DATA)
        weights = torch.randn(len(student), 6, CLASSES, generator=torch.Generator().manual_seed(0))
        (student(images()) * weights).sum().backward()
        for name, p in student.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name
            assert p.grad.any(), name

    def test_optimizer_groups_contain_every_parameter_once(self, piece: Any) -> None:
        student = toy_student(piece, DATA)
        groups = student.parameter_groups(0.01)
        ids = [id(p) for group in groups for p in group["params"]]
        assert sorted(ids) == sorted(id(p) for p in student.parameters())
        assert all(group["lr_scale"] > 0 and 0 <= group["weight_decay"] <= 0.01 for group in groups)

    def test_merged_student_is_a_single_network(self, piece: Any) -> None:
        merged = toy_student(piece, DATA).merged().eval()
        assert merged(images()).shape == (6, CLASSES)
        assert merged(images()).isfinite().all()

    def test_merged_student_shares_no_memory_with_the_student(self, piece: Any) -> None:
        student = toy_student(piece, DATA)
        before = state(student)
        merged = student.merged()
        with torch.no_grad():
            for tensor in merged.state_dict().values():
                tensor.zero_()
        assert unchanged(before, student)

    def test_running_and_merging_do_not_change_the_student_in_evaluation_mode(self, piece: Any) -> None:
        student = toy_student(piece, DATA).eval()
        before = state(student)
        student(images())
        student(images(), [0])
        student.merged()
        assert unchanged(before, student)
        assert not any(module.training for module in student.modules())

    def test_state_dict_contains_the_complete_state(self, piece: Any) -> None:
        student = toy_student(piece, DATA)
        student(images())
        other = toy_student(piece, DATA, seed=9)
        other.load_state_dict(student.state_dict())
        assert torch.equal(other.eval()(images()), student.eval()(images()))

    def test_deep_copy_is_independent(self, piece: Any) -> None:
        student = toy_student(piece, DATA).eval()
        before = student(images())
        clone = copy.deepcopy(student)
        assert torch.equal(clone(images()), before)
        with torch.no_grad():
            for p in clone.parameters():
                p.zero_()
        assert torch.equal(student(images()), before)

    def test_logits_of_bfloat16_students_are_finite(self, piece: Any) -> None:
        student = toy_student(piece, DATA).bfloat16().eval()
        logits = student(images().bfloat16())
        assert logits.dtype == torch.bfloat16
        assert logits.isfinite().all()
