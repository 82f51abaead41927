"""EKD agrees with the hand-computed values of METHODS E1 and with loops over single examples."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ensdistill.methods.losses import Averaged, Ekd, Labels
from tests.unit.core.by_hand import kl, mean, softmax

T = 4.0
TEACHERS = torch.tensor([[[2.0, 1, 0]], [[0, 1, 2]]], dtype=torch.float64)
BRANCHES = torch.tensor([[[1.0, 0, 0]], [[0, 0, 1]]], dtype=torch.float64)
LABEL = torch.tensor([0])
OF_BRANCHES = 0.551445 + 1.551445  # label terms of case E1
OWN_TEACHERS = 2 * 0.098609
LOGIT_TERMS = 2 * 0.666667 + 0.5


def loss(
    label: float = 0.0,
    teacher: float = 0.0,
    logit: float = 0.0,
    student_aggregation: str = "mean_of_logits",
    teacher_aggregation: str = "mean_of_logits",
) -> float:
    """Returns the loss of case E1 with these weights of the terms."""
    settings = Ekd(
        temperature=T,
        label_weight=label,
        teacher_weight=teacher,
        logit_weight=logit,
        student_aggregation=student_aggregation,
        teacher_aggregation=teacher_aggregation,
    )
    return float(settings(BRANCHES, TEACHERS, LABEL, BRANCHES))


def random_logits(members: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(members, 5, 4, generator=generator, dtype=torch.float64)


# --- E1 ---


def test_the_loss_with_unit_weights_equals_the_hand_computed_value() -> None:
    assert loss(1, 1) == pytest.approx(3.285507, abs=2e-6)


@pytest.mark.parametrize(("student_aggregation", "of_all"), [("mean_of_logits", 0.958020), ("sum_of_logits", 0.861995)])
def test_label_terms_are_computed_for_each_branch_and_for_their_combined_output(
    student_aggregation: str, of_all: float
) -> None:
    assert loss(label=1, student_aggregation=student_aggregation) == pytest.approx(of_all + OF_BRANCHES, abs=2e-6)


@pytest.mark.parametrize(
    ("teacher_aggregation", "of_all"), [("mean_of_logits", 0.027380), ("mean_of_probabilities", 0.015394)]
)
def test_teacher_terms_are_computed_for_each_branch_and_for_the_ensemble(
    teacher_aggregation: str, of_all: float
) -> None:
    assert loss(teacher=1, teacher_aggregation=teacher_aggregation) == pytest.approx(OWN_TEACHERS + of_all, abs=2e-6)


def test_logit_terms_are_mean_squared_errors() -> None:
    assert loss(logit=1) == pytest.approx(LOGIT_TERMS, abs=2e-6)


def test_each_weight_multiplies_only_its_terms() -> None:
    expected = 0.5 * (0.958020 + OF_BRANCHES) + 2 * (OWN_TEACHERS + 0.027380) + 3 * LOGIT_TERMS
    assert loss(0.5, 2, 3) == pytest.approx(expected, abs=1e-5)


def test_swapping_the_teachers_changes_only_the_branch_terms() -> None:
    settings = Ekd(temperature=T, label_weight=0)
    crossed = settings(BRANCHES, TEACHERS.flip(0), LABEL, BRANCHES)
    assert float(crossed) == pytest.approx(2 * 0.758424 + 0.027380, abs=2e-6)  # .758424: case K2 with swapped pairs


# --- special cases ---


def test_with_teacher_weight_zero_the_loss_is_the_multi_branch_cross_entropy() -> None:
    s, labels = random_logits(3, 0), torch.tensor([0, 3, -1, 2, -1])
    loss = Ekd(teacher_weight=0)(s, random_logits(3, 1), labels, s)
    labeled = [(b, label) for b, label in enumerate(labels.tolist()) if label >= 0]
    heads = [*s.tolist(), s.mean(0).tolist()]
    terms = [-math.log(softmax(head[b])[label]) for head in heads for b, label in labeled]
    assert float(loss) == pytest.approx(sum(terms) / len(labeled))


@pytest.mark.parametrize("student_aggregation", ["mean_of_logits", "sum_of_logits", "mean_of_probabilities"])
@pytest.mark.parametrize("teacher_aggregation", ["mean_of_logits", "mean_of_probabilities"])
def test_with_one_branch_and_one_teacher_the_loss_is_twice_that_of_plain_distillation(
    student_aggregation: str, teacher_aggregation: str
) -> None:
    s, t, labels = random_logits(1, 0), random_logits(1, 1), torch.tensor([0, 3, -1, 2, -1])
    settings = Ekd(temperature=3.0, student_aggregation=student_aggregation, teacher_aggregation=teacher_aggregation)
    plain = Labels()(s, t, labels, s) + Averaged(temperature=3.0, alpha=1.0)(s, t, labels, s)
    assert_close(settings(s, t, labels, s), 2 * plain)


def test_the_teacher_and_logit_terms_are_zero_if_every_branch_equals_its_teacher() -> None:
    settings = Ekd(label_weight=0, logit_weight=1)
    t = random_logits(3, 0)
    assert float(settings(t, t, LABEL.expand(5), t)) == pytest.approx(0, abs=1e-12)


def test_label_terms_use_the_logits_given_for_labels() -> None:
    s, other, t, labels = random_logits(2, 0), random_logits(2, 1), random_logits(2, 2), LABEL.expand(5)
    parts = Ekd(teacher_weight=0)(other, t, labels, other) + Ekd(label_weight=0)(s, t, labels, s)
    assert_close(Ekd()(s, t, labels, other), parts)


# --- loops over single examples ---


def head(rows: list[list[float]], how: str, temperature: float) -> list[float]:
    """Returns the combined probabilities of several members at temperature T."""
    if how == "mean_of_probabilities":
        return mean([softmax(row, temperature) for row in rows])
    return softmax([(len(rows) if how == "sum_of_logits" else 1) * z for z in mean(rows)], temperature)


@pytest.mark.parametrize("student_aggregation", ["mean_of_logits", "sum_of_logits", "mean_of_probabilities"])
@pytest.mark.parametrize("teacher_aggregation", ["mean_of_logits", "mean_of_probabilities"])
@pytest.mark.parametrize(("branches", "teachers"), [(2, 2), (2, 3), (3, 2), (1, 4)])
def test_the_loss_equals_a_loop_over_branches_and_images(
    student_aggregation: str, teacher_aggregation: str, branches: int, teachers: int
) -> None:
    s, t, temperature, labels = random_logits(branches, 0), random_logits(teachers, 1), 2.5, [0, 3, 1, 2, 0]
    total = 0.0
    for b in range(5):
        z, own = s[:, b].tolist(), t[:, b].tolist()
        total += -math.log(head(z, student_aggregation, 1)[labels[b]])
        total += temperature**2 * kl(
            head(own, teacher_aggregation, temperature), head(z, student_aggregation, temperature)
        )
        for k in range(branches):
            taught_by = [m for m in range(teachers) if m % branches == k] or [k % teachers]
            p = mean([softmax(own[m], temperature) for m in taught_by])
            total += -math.log(softmax(z[k])[labels[b]]) + temperature**2 * kl(p, softmax(z[k], temperature))
    settings = Ekd(
        temperature=temperature, student_aggregation=student_aggregation, teacher_aggregation=teacher_aggregation
    )
    assert float(settings(s, t, torch.tensor(labels), s)) == pytest.approx(total / 5)


def test_the_formula_also_holds_for_a_teacher_with_probability_zero_for_a_class() -> None:
    # By hand: CE 3 ln 3; at T = 4, KL(t_1 || z_1) = ln 3/2, KL(t_2 || z_2) = 0, KL(mean of logits || z) = ln 3/2.
    teachers = torch.tensor([[[0.0, 0, -torch.inf]], [[0.0, 0, 0]]])
    student = torch.zeros(2, 1, 3, requires_grad=True)
    loss = Ekd(temperature=4.0)(student, teachers, torch.tensor([0]), student)
    assert loss.item() == pytest.approx(3 * math.log(3) + 16 * 2 * math.log(1.5))  # 16.2707
    loss.backward()
    assert bool(student.grad.isfinite().all())


def test_at_logit_weight_zero_an_overflow_of_squared_logits_does_not_change_the_loss() -> None:
    teachers = torch.full((2, 1, 3), 1e30)
    student = torch.zeros(2, 1, 3)
    assert float(Ekd(temperature=4.0)(student, teachers, torch.tensor([0]), student)) == pytest.approx(3 * math.log(3))
