"""Losses agree with hand-computed values (METHODS K1, K2) and with loops over single examples."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ensdistill.config import Config, load_config
from ensdistill.methods.losses import AeKd, Averaged, Ekd, End2, Labels, OneToOne, ProxyEnd2, UniKd
from ensdistill.methods.losses.losses import kl_divergence, label_cross_entropy, weighted_sum
from ensdistill.methods.students import BatchEnsemble
from tests.unit.core.by_hand import kl, mean, softmax

T = 4.0
# Case K1: two teachers, one example, three classes; K2 adds a second subnetwork.
TEACHERS = torch.tensor([[[2.0, 1, 0]], [[0, 1, 2]]], dtype=torch.float64)
STUDENT = torch.tensor([[[1.0, 0, 0]]], dtype=torch.float64)
TWO = torch.tensor([[[1.0, 0, 0]], [[0, 0, 1]]], dtype=torch.float64)
NO_LABEL = torch.tensor([-1])
AVERAGES = {"tempered_probabilities": 0.102003, "losses": 0.428516, "probabilities": 0.087076, "logits": 0.113989}


def hand(value: float | list[float]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def kd(student: Tensor, average: str) -> Tensor:
    return Averaged(temperature=T, alpha=1.0, average=average)(student, TEACHERS, NO_LABEL, student)


# --- K1: one student and the averaged teacher ---


@pytest.mark.parametrize(("average", "expected"), AVERAGES.items())
def test_the_loss_with_each_average_equals_the_hand_computed_value_of_case_k1(average: str, expected: float) -> None:
    assert_close(kd(STUDENT, average), hand(expected), atol=1e-5, rtol=0)


def test_the_mean_of_losses_exceeds_the_loss_of_the_mean_by_the_jensen_shannon_divergence() -> None:
    difference = kd(STUDENT, "losses") - kd(STUDENT, "tempered_probabilities")
    assert_close(difference, hand(0.326513), atol=1e-5, rtol=0)


def test_the_cross_entropy_form_is_the_kl_form_plus_the_target_entropy() -> None:
    p = mean([softmax([2, 1, 0], T), softmax([0, 1, 2], T)])
    entropy = -sum(a * math.log(a) for a in p)
    assert_close(kd(STUDENT, "tempered_probabilities") + T**2 * entropy, hand(17.678111), atol=1e-5, rtol=0)


@pytest.mark.parametrize("average", ["tempered_probabilities", "losses"])
def test_both_forms_of_the_loss_have_the_gradient_of_case_k1(average: str) -> None:
    student = STUDENT.clone().requires_grad_()
    kd(student, average).backward()
    assert_close(student.grad, hand([[[0.216957, -0.087966, -0.128991]]]), atol=1e-5, rtol=0)


def test_the_gradient_is_temperature_over_batch_size_times_the_probability_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(1, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    teachers = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    Averaged(temperature=3.0, alpha=1.0)(student, teachers, NO_LABEL.expand(6), student).backward()
    expected = 3.0 / 6 * ((student / 3).softmax(-1) - (teachers / 3).softmax(-1).mean(0))
    assert_close(student.grad, expected)


# --- K2: one teacher per subnetwork ---


def test_the_one_to_one_loss_equals_the_hand_computed_value_of_case_k2() -> None:
    assert_close(OneToOne(temperature=T)(TWO, TEACHERS, NO_LABEL, TWO), hand(0.098609), atol=1e-5, rtol=0)


def test_the_loss_of_hydra_equals_the_hand_computed_value_of_case_k2() -> None:
    hydra = load_config("hydra", ["loss.alpha=1"]).loss
    assert_close(hydra(TWO, TEACHERS, NO_LABEL, TWO), hand(0.098609), atol=1e-5, rtol=0)
    assert_close(hydra(TWO, TEACHERS.flip(0), NO_LABEL, TWO), hand(0.758424), atol=1e-5, rtol=0)


def test_swapping_the_teachers_changes_the_one_to_one_loss() -> None:
    crossed = OneToOne(temperature=T)(TWO, TEACHERS.flip(0), NO_LABEL, TWO)
    assert_close(crossed, hand(0.758424), atol=1e-5, rtol=0)


def test_the_one_to_one_cross_entropy_form_is_the_kl_form_plus_the_mean_teacher_entropy() -> None:
    p = softmax([2, 1, 0], T)  # probabilities of the other teacher are these in reverse order, with the same entropy
    entropy = -sum(a * math.log(a) for a in p)
    loss = OneToOne(temperature=T)(TWO, TEACHERS, NO_LABEL, TWO)
    assert_close(loss + T**2 * entropy, hand(17.348203), atol=1e-5, rtol=0)


def test_swapping_the_teachers_does_not_change_the_averaged_loss() -> None:
    averaged = Averaged(temperature=T)
    assert_close(averaged(TWO, TEACHERS, NO_LABEL, TWO), averaged(TWO, TEACHERS.flip(0), NO_LABEL, TWO))


# --- special cases ---


@pytest.mark.parametrize("average", AVERAGES)
def test_kl_is_zero_if_the_student_equals_the_only_teacher(average: str) -> None:
    loss = Averaged(temperature=T, alpha=1.0, average=average)(STUDENT, STUDENT, NO_LABEL, STUDENT)
    assert_close(loss, hand(0.0), atol=1e-12, rtol=0)


def test_the_one_to_one_loss_is_zero_if_every_subnetwork_equals_its_teacher() -> None:
    assert_close(OneToOne(temperature=T)(TEACHERS, TEACHERS, NO_LABEL, TEACHERS), hand(0.0), atol=1e-12, rtol=0)


def test_kl_from_a_one_hot_target_is_the_negative_log_likelihood_of_its_class() -> None:
    loss = kl_divergence(hand([[0, 1, 0]]), hand([[2, 1, 0]]), 1.0)
    assert_close(loss, hand(-math.log(softmax([2, 1, 0], 1)[1])))


@pytest.mark.parametrize("loss", [Averaged, OneToOne])
def test_with_alpha_zero_only_the_label_term_remains(loss: type[Averaged] | type[OneToOne]) -> None:
    labels = torch.tensor([2])
    assert_close(loss(alpha=0.0)(TWO, TEACHERS, labels, TWO), Labels()(TWO, TEACHERS, labels, TWO))


@pytest.mark.parametrize("loss", [Averaged, OneToOne])
def test_with_alpha_one_labels_have_no_effect(loss: type[Averaged] | type[OneToOne]) -> None:
    losses = [loss(alpha=1.0)(TWO, TEACHERS, torch.tensor([label]), TWO) for label in (-1, 0, 2)]
    assert losses[0] == losses[1] == losses[2]


def test_the_label_term_is_computed_from_the_separate_logits_for_labels() -> None:
    loss = Averaged(temperature=T, alpha=0.25)(TWO, TEACHERS, torch.tensor([0]), TWO * 3)
    parts = 0.75 * Labels()(TWO, TEACHERS, torch.tensor([0]), TWO * 3) + 0.25 * kd(TWO, "tempered_probabilities")
    assert_close(loss, parts)


def test_unlabeled_images_are_excluded_from_the_mean_of_the_label_term() -> None:
    logits = [[2.0, 1, 0], [0, 3, 1], [1, 1, 4]]
    expected = -(math.log(softmax(logits[0], 1)[1]) + math.log(softmax(logits[2], 1)[0])) / 2
    assert_close(label_cross_entropy(hand([logits]), torch.tensor([1, -1, 0])), hand(expected))


def test_the_label_term_of_a_batch_with_one_label_is_that_of_the_labeled_image() -> None:
    expected = -math.log(softmax([0, 3, 1], 1)[2])
    assert_close(label_cross_entropy(hand([[[2, 1, 0], [0, 3, 1]]]), torch.tensor([-1, 2])), hand(expected))


def test_the_label_term_of_a_batch_without_labels_is_zero_and_has_zero_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = label_cross_entropy(student, NO_LABEL)
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


# --- loops over single examples, K subnetworks and M teachers ---


def _random_logits(subnetworks: int, teachers: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10 * subnetworks + teachers)

    def logits(members: int) -> Tensor:
        return 2 * torch.randn(members, 5, 4, generator=generator, dtype=torch.float64)

    labels = torch.tensor([0, 3, -1, 2, -1])
    return logits(subnetworks), logits(teachers), labels, logits(subnetworks)


def _label_loop(on_labels: Tensor, labels: Tensor) -> float:
    terms = [
        -math.log(softmax(member[b].tolist(), 1)[label])
        for member in on_labels
        for b, label in enumerate(labels.tolist())
        if label >= 0
    ]
    return sum(terms) / len(terms)


def _target_loop(teachers: list[list[float]], average: str, temperature: float) -> list[float]:
    if average == "logits":
        return softmax(mean(teachers), temperature)
    if average == "probabilities":
        return softmax([math.log(p) for p in mean([softmax(t, 1) for t in teachers])], temperature)
    return mean([softmax(t, temperature) for t in teachers])


SIZES = [(1, 1), (1, 3), (2, 3), (2, 4), (3, 2), (4, 1), (3, 3)]


@pytest.mark.parametrize(("subnetworks", "teachers"), SIZES)
@pytest.mark.parametrize("average", AVERAGES)
def test_the_averaged_loss_equals_a_loop_over_subnetworks_and_examples(
    subnetworks: int, teachers: int, average: str
) -> None:
    s, t, labels, on_labels = _random_logits(subnetworks, teachers)
    temperature, alpha = 2.5, 0.7
    terms = []
    for k in range(subnetworks):
        for b in range(5):
            q = softmax(s[k, b].tolist(), temperature)
            own = [t[m, b].tolist() for m in range(teachers)]
            if average == "losses":
                terms.append(sum(kl(softmax(one, temperature), q) for one in own) / teachers)
            else:
                terms.append(kl(_target_loop(own, average, temperature), q))
    expected = (1 - alpha) * _label_loop(on_labels, labels) + alpha * temperature**2 * sum(terms) / len(terms)
    loss = Averaged(temperature=temperature, alpha=alpha, average=average)(s, t, labels, on_labels)
    assert_close(loss, hand(expected))


@pytest.mark.parametrize(("subnetworks", "teachers"), SIZES)
def test_the_one_to_one_loss_equals_a_loop_that_assigns_teacher_m_to_subnetwork_m_mod_k(
    subnetworks: int, teachers: int
) -> None:
    s, t, labels, on_labels = _random_logits(subnetworks, teachers)
    temperature, alpha = 2.5, 0.7
    terms = []
    for k in range(subnetworks):
        own = [m for m in range(teachers) if m % subnetworks == k] or [k % teachers]
        for b in range(5):
            p = mean([softmax(t[m, b].tolist(), temperature) for m in own])
            terms.append(kl(p, softmax(s[k, b].tolist(), temperature)))
    expected = (1 - alpha) * _label_loop(on_labels, labels) + alpha * temperature**2 * sum(terms) / len(terms)
    loss = OneToOne(temperature=temperature, alpha=alpha)(s, t, labels, on_labels)
    assert_close(loss, hand(expected))


# --- symmetry ---


def _trained_factors(loss: Averaged | OneToOne, same_teachers: bool) -> list[Tensor]:
    """Returns r and s of a linear rank-one ensemble after ten steps."""
    generator = torch.Generator().manual_seed(3)
    student = BatchEnsemble(subnetworks=2)(torch.nn.Linear(4, 3).double())
    torch.nn.init.normal_(student.network.layer.weight, generator=generator)
    optimizer = Config().training.new_optimizer(student)
    for _ in range(10):
        x = torch.rand(6, 4, generator=generator, dtype=torch.float64)
        teachers = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
        teachers = teachers[:1].repeat(2, 1, 1) if same_teachers else teachers
        logits = student(x)
        optimizer.zero_grad()
        loss(logits, teachers, torch.full((6,), -1), logits).backward()
        optimizer.step()
    return [student.network.r.detach(), student.network.s.detach()]


@pytest.mark.parametrize(
    ("loss", "same_teachers"), [(OneToOne(), True), (Averaged(), False), (Averaged(average="losses"), False)]
)
def test_the_factors_of_all_subnetworks_stay_identical_if_their_targets_are_identical(
    loss: Averaged | OneToOne, same_teachers: bool
) -> None:
    for factor in _trained_factors(loss, same_teachers):
        assert factor.abs().max() > 1e-4  # they have changed
        assert_close(factor[0], factor[1], atol=1e-12, rtol=0)


def test_the_factors_of_the_subnetworks_become_different_if_their_teachers_are_different() -> None:
    for factor in _trained_factors(OneToOne(), same_teachers=False):
        assert (factor[0] - factor[1]).abs().max() > 1e-3


def never() -> Tensor:
    raise AssertionError("a term of weight 0 was computed")


def test_a_term_with_weight_zero_is_not_computed() -> None:
    assert float(weighted_sum((0.0, never), (2.0, lambda: torch.tensor(3.0)), (0, never))) == 6


def test_a_sum_of_terms_with_weight_zero_is_zero_and_has_a_gradient() -> None:
    student = torch.ones(2, requires_grad=True)
    weighted_sum((0.0, student.sum), (0.0, never)).backward()
    assert student.grad.tolist() == [0, 0]


@pytest.mark.parametrize(
    "piece",
    [
        Averaged(alpha=0.0),
        OneToOne(alpha=0.0),
        AeKd(teacher_weight=0.0),
        UniKd(labeled_weight=0.0, unlabeled_weight=0.0),
        Ekd(teacher_weight=0.0),
        End2(alpha=0.0),
        ProxyEnd2(alpha=0.0),
    ],
    ids=lambda piece: piece.kind,
)
def test_teachers_with_weight_zero_may_have_non_finite_logits(piece: Any) -> None:
    student, labels = torch.zeros(2, 3, 4, requires_grad=True), torch.tensor([0, 1, 2])
    times = 3 if piece.kind == "ekd" else 1  # of two branches and of their combination
    for number in (torch.nan, torch.inf, -torch.inf):
        loss = piece(student, torch.full((2, 3, 4), number), labels, student)
        assert float(loss) == pytest.approx(times * math.log(4))
