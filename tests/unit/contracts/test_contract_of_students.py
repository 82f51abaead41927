"""The built-in students satisfy the contract; those that merge their weights begin and end as a plain network."""

from typing import Any

import pytest
from torch import Tensor
from torch.testing import assert_close

from ensdistill.methods.students import STUDENTS
from ensdistill.models import build
from ensdistill.testing import StudentContract
from ensdistill.testing.toy import CLASSES, MODEL, toy_data, toy_student
from tests.unit.contracts.contract_pieces import variants

DATA = toy_data()


class TestStudents(StudentContract):
    pieces = variants(STUDENTS)


def images() -> Tensor:
    return DATA.train[slice(0, 6)][0]


starting_as_one = pytest.mark.parametrize(
    "settings",
    [
        v
        for v in variants(STUDENTS)
        if getattr(v.values[0], "factor_init", "ones") == "ones" and v.values[0].kind != "branches"
    ],
)
merged_to_one = pytest.mark.parametrize(
    "settings", [v for v in variants(STUDENTS) if "probabilities" not in v.id and v.values[0].kind != "branches"]
)


@starting_as_one
def test_every_subnetwork_initially_equals_the_original_network(settings: Any) -> None:
    plain = build(MODEL, DATA, 0).eval()
    student = toy_student(settings, DATA, spread=False).eval()
    for logits in student(images()):
        assert_close(logits, plain(images()))
    merged = student.merged().eval()(images())
    assert_close(merged.log_softmax(-1), plain(images()).log_softmax(-1))


@merged_to_one
def test_the_merged_student_is_a_plain_network_with_the_same_parameter_names(settings: Any) -> None:
    merged = toy_student(settings, DATA).merged().eval()
    plain = build(MODEL, DATA, 0)
    assert {name: p.shape for name, p in merged.state_dict().items()} == {
        name: p.shape for name, p in plain.state_dict().items()
    }
    assert merged(images()).shape == (6, CLASSES)
    assert merged(images()).isfinite().all()
