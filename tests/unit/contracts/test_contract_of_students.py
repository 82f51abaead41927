"""What every student promises: K functions behind one call, and one plain network at the end."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ensdistill.methods.students import StudentSettings
from ensdistill.methods.students.base import Student
from ensdistill.models import build
from tests.unit.contracts.contract_pieces import CLASSES, MODEL, toy_data, toy_student, variants

every_student = pytest.mark.parametrize("settings", variants(StudentSettings))
DATA = toy_data()


def images() -> Tensor:
    return DATA.train[slice(0, 6)][0]


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def unchanged(before: dict[str, Tensor], module: torch.nn.Module) -> bool:
    return all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@every_student
def test_logits_are_finite_and_one_set_for_each_subnetwork(settings: Any) -> None:
    student = toy_student(settings, DATA)
    assert isinstance(student, Student)
    logits = student(images())
    assert logits.shape == (len(student), 6, CLASSES)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@every_student
def test_a_chosen_subnetwork_is_its_slice_of_all_of_them(settings: Any) -> None:
    student = toy_student(settings, DATA).eval()
    for k in range(len(student)):
        assert_close(student(images(), [k]), student(images())[[k]])


@every_student
def test_same_seed_gives_the_same_logits(settings: Any) -> None:
    first, second = (toy_student(settings, DATA, spread=False).eval() for _ in range(2))
    assert torch.equal(first(images()), second(images()))


starting_as_one = pytest.mark.parametrize(
    "settings",
    [
        v
        for v in variants(StudentSettings)
        if getattr(v.values[0], "factor_init", "ones") == "ones" and v.values[0].kind != "branches"
    ],
)
merged_to_one = pytest.mark.parametrize(
    "settings", [v for v in variants(StudentSettings) if "probabilities" not in v.id and v.values[0].kind != "branches"]
)


@starting_as_one
def test_every_subnetwork_starts_as_the_network_it_was_made_of(settings: Any) -> None:
    plain = build(MODEL, DATA, 0).eval()
    student = toy_student(settings, DATA, spread=False).eval()
    for logits in student(images()):
        assert_close(logits, plain(images()))
    merged = student.merged().eval()(images())
    assert_close(merged.log_softmax(-1), plain(images()).log_softmax(-1))


@every_student
def test_logits_of_an_image_do_not_depend_on_the_others_in_evaluation(settings: Any) -> None:
    student = toy_student(settings, DATA).eval()
    assert_close(student(images()[2:3]), student(images())[:, 2:3], atol=1e-5, rtol=1e-5)


@every_student
def test_gradient_reaches_every_parameter(settings: Any) -> None:
    student = toy_student(settings, DATA)
    weights = torch.randn(len(student), 6, CLASSES, generator=torch.Generator().manual_seed(0))
    (student(images()) * weights).sum().backward()
    for name, p in student.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name


@every_student
def test_optimizer_groups_hold_every_parameter_once(settings: Any) -> None:
    student = toy_student(settings, DATA)
    groups = student.parameter_groups(0.01)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in student.parameters())
    assert all(group["lr_scale"] > 0 and 0 <= group["weight_decay"] <= 0.01 for group in groups)


@every_student
def test_merged_student_is_one_network(settings: Any) -> None:
    merged = toy_student(settings, DATA).merged().eval()
    assert merged(images()).shape == (6, CLASSES)
    assert merged(images()).isfinite().all()


@merged_to_one
def test_merged_student_is_a_plain_network_with_the_same_names(settings: Any) -> None:
    merged = toy_student(settings, DATA).merged().eval()
    plain = build(MODEL, DATA, 0)
    assert {name: p.shape for name, p in merged.state_dict().items()} == {
        name: p.shape for name, p in plain.state_dict().items()
    }
    assert merged(images()).shape == (6, CLASSES)
    assert merged(images()).isfinite().all()


@every_student
def test_merged_student_shares_no_memory_with_the_student(settings: Any) -> None:
    student = toy_student(settings, DATA)
    before = state(student)
    merged = student.merged()
    with torch.no_grad():
        for tensor in merged.state_dict().values():
            tensor.zero_()
    assert unchanged(before, student)


@every_student
def test_running_and_merging_leave_the_student_as_it_was_in_evaluation(settings: Any) -> None:
    student = toy_student(settings, DATA).eval()
    before = state(student)
    student(images())
    student(images(), [0])
    student.merged()
    assert unchanged(before, student)
    assert not any(module.training for module in student.modules())


@every_student
def test_state_dict_holds_the_whole_function(settings: Any) -> None:
    student = toy_student(settings, DATA)
    student(images())
    other = toy_student(settings, DATA, seed=9)
    other.load_state_dict(student.state_dict())
    assert torch.equal(other.eval()(images()), student.eval()(images()))


@every_student
def test_deep_copy_is_a_student_of_its_own(settings: Any) -> None:
    student = toy_student(settings, DATA).eval()
    before = student(images())
    clone = copy.deepcopy(student)
    assert torch.equal(clone(images()), before)
    with torch.no_grad():
        for p in clone.parameters():
            p.zero_()
    assert torch.equal(student(images()), before)


@every_student
def test_bfloat16_students_give_finite_logits(settings: Any) -> None:
    student = toy_student(settings, DATA).bfloat16().eval()
    logits = student(images().bfloat16())
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
