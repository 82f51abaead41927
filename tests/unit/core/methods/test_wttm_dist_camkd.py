"""WTTM, DIST, CA-MKD and standardized logits agree with hand-computed values and loops over single images."""

import math
import statistics

import pytest
import torch
from scipy.stats import pearsonr
from torch import Tensor
from torch.testing import assert_close

from ensdistill.methods.losses import Averaged, CaMkd, Dist, OneToOne, Wttm
from tests.unit.core.by_hand import kl, softmax

T = 4.0
TEACHERS = torch.tensor([[[2.0, 1, 0]], [[0, 1, 2]]], dtype=torch.float64)  # METHODS K1
STUDENT = torch.tensor([[[1.0, 0, 0]]], dtype=torch.float64)
NO_LABEL = torch.tensor([-1])


def hand(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def logits(members: int, seed: int) -> Tensor:
    return 2 * torch.randn(members, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- WTTM ---


def test_wttm_of_case_k1_equals_the_hand_computed_value() -> None:
    # softmax([2,1,0]) = [.665241, .244728, .090031]; ^(1/2) = [.815623, .494701, .300051]; Z = 1.610375;
    # q/Z = [.506480, .307196, .186324]; log softmax([1,0,0]) = [-.551445, -1.551445, -1.551445];
    # KL = [.506480(-.680270+.551445) + .307196(-1.180270+1.551445) + .186324(-1.680270+1.551445)] = .024770;
    # Teacher 2 is the mirror image: q/Z = [.186324, .307196, .506480], KL = .344927. Mean of Z KL = .297667.
    loss = Wttm(temperature=2.0, alpha=1.0)(STUDENT, TEACHERS, NO_LABEL, STUDENT)
    assert_close(loss, hand(0.297667), atol=2e-5, rtol=0)


def test_wttm_equals_a_loop_over_teachers_and_images() -> None:
    s, t = logits(2, 0), logits(3, 1)
    terms = []
    for subnetwork in s:
        for teacher in t:
            for own, other in zip(subnetwork, teacher, strict=True):
                powers = [p ** (1 / T) for p in softmax(other.tolist())]
                total = sum(powers)
                terms.append(total * kl([power / total for power in powers], softmax(own.tolist())))
    loss = Wttm(temperature=T, alpha=1.0)(s, t, torch.full((5,), -1), s)
    assert_close(loss, hand(statistics.mean(terms)))


def test_wttm_at_temperature_one_equals_the_mean_of_plain_losses() -> None:
    s, t, none = logits(2, 0), logits(3, 1), torch.full((5,), -1)
    plain = Averaged(temperature=1.0, alpha=1.0, average="losses")(s, t, none, s)
    assert_close(Wttm(temperature=1.0, alpha=1.0)(s, t, none, s), plain)


def test_wttm_gives_more_weight_to_images_on_which_a_teacher_is_uncertain() -> None:
    undecided, certain = torch.tensor([[[0.0, 0, 0]]]).double(), torch.tensor([[[20.0, 0, 0]]]).double()
    gradients = []
    for teacher in (undecided, certain):
        student = (teacher + torch.tensor([0.1, 0, -0.1])).requires_grad_()
        Wttm(temperature=2.0, alpha=1.0)(student, teacher, NO_LABEL, student).backward()
        gradients.append(student.grad)
    softened = (undecided / 2).softmax(-1)
    total = math.sqrt(3)  # three times (1/3)^(1/2)
    expected = total * (((undecided + torch.tensor([0.1, 0, -0.1])).softmax(-1)) - softened)
    assert_close(gradients[0], expected)


# --- DIST ---


@pytest.mark.parametrize(("between", "within"), [(2.0, 0.0), (0.0, 1.0), (1.0, 3.0)])
def test_dist_agrees_with_the_correlation_of_scipy(between: float, within: float) -> None:
    s, t = logits(2, 0), logits(3, 1)
    teacher = torch.tensor([[softmax(z, T) for z in m] for m in t.tolist()], dtype=torch.float64).mean(0)
    rows, columns = [], []
    for subnetwork in s.tolist():
        own = torch.tensor([softmax(z, T) for z in subnetwork], dtype=torch.float64)
        rows += [1 - pearsonr(a, b).statistic for a, b in zip(own, teacher, strict=True)]
        columns += [1 - pearsonr(a, b).statistic for a, b in zip(own.T, teacher.T, strict=True)]
    expected = T**2 * (between * statistics.mean(rows) + within * statistics.mean(columns))
    piece = Dist(temperature=T, alpha=1.0, between_classes=between, within_class=within)
    assert_close(piece(s, t, torch.full((5,), -1), s), hand(expected), atol=0, rtol=1e-6)


def test_dist_is_zero_if_student_probabilities_are_an_affine_function_of_teacher_probabilities() -> None:
    probabilities = logits(1, 0).softmax(-1)
    student = (0.5 * probabilities + 0.5 / 4).log()  # mixed with a uniform distribution
    piece = Dist(temperature=1.0, alpha=1.0, between_classes=1.0, within_class=0.0)
    loss = piece(student, probabilities.log(), torch.full((5,), -1), student)
    assert_close(loss, hand(0.0), atol=1e-5, rtol=0)


def test_the_within_class_term_of_dist_has_zero_gradient_for_a_single_image() -> None:
    student = STUDENT.clone().requires_grad_()
    Dist(alpha=1.0, between_classes=0.0, within_class=1.0)(student, TEACHERS, NO_LABEL, student).backward()
    assert_close(student.grad, torch.zeros_like(STUDENT))


# --- CA-MKD ---


def test_camkd_weights_of_case_k1_equal_the_hand_computed_values() -> None:
    # CE of label 0: .407606 and 2.407606; softmax over teachers = [.119203, .880797]; M - 1 = 1.
    weights = CaMkd.teacher_weights(TEACHERS, torch.tensor([0]))
    assert_close(weights, torch.tensor([[0.880797], [0.119203]], dtype=torch.float64), atol=1e-5, rtol=0)


def test_camkd_equals_a_loop_over_images() -> None:
    s, t, labels = logits(2, 0), logits(3, 1), [0, 3, -1, 2, 1]
    terms = []
    for subnetwork in s.tolist():
        for b, label in enumerate(labels):
            errors = [0.0 if label < 0 else -math.log(softmax(m[b])[label]) for m in t.tolist()]
            shares = softmax(errors)
            weights = [(1 - share) / 2 for share in shares]
            losses = [T**2 * kl(softmax(m[b], T), softmax(subnetwork[b], T)) for m in t.tolist()]
            terms.append(sum(w * loss for w, loss in zip(weights, losses, strict=True)))
    loss = CaMkd(temperature=T, label_weight=0.0)(s, t, torch.tensor(labels), s)
    assert_close(loss, hand(statistics.mean(terms)))


@pytest.mark.parametrize("teachers", [1, 3])
def test_camkd_without_labels_equals_the_mean_of_losses(teachers: int) -> None:
    s, t, none = logits(2, 0), logits(teachers, 1), torch.full((5,), -1)
    plain = Averaged(temperature=T, alpha=1.0, average="losses")(s, t, none, s)
    assert_close(CaMkd(temperature=T, label_weight=0.0)(s, t, none, s), plain)


# --- standardized logits ---


def test_standardized_logits_of_case_k1_equal_the_hand_computed_values() -> None:
    # [1,0,0] has mean 1/3 and standard deviation 1/sqrt(3): [1.154701, -.577350, -.577350].
    # [2,1,0] becomes [1,0,-1]; [0,1,2] becomes [-1,0,1].
    piece = OneToOne(temperature=1.0, alpha=1.0, logit_standardization=True)
    student = STUDENT.expand(2, 1, 3)
    own = softmax([1.154701, -0.57735, -0.57735])
    expected = statistics.mean([kl(softmax([1, 0, -1]), own), kl(softmax([-1, 0, 1]), own)])
    assert_close(piece(student, TEACHERS, NO_LABEL, student), hand(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [Averaged, OneToOne, Wttm, Dist])
def test_with_logit_standardization_only_the_distillation_term_is_invariant_to_scale(kind: type) -> None:
    s, t, labels = logits(2, 0), logits(3, 1), torch.tensor([0, 3, 1, 2, 1])
    piece = kind(alpha=1.0, logit_standardization=True)
    assert_close(piece(7 * s + 3, t, labels, s), piece(s, t, labels, s), atol=1e-6, rtol=1e-6)
    plain, scaled = kind(alpha=0.0), kind(alpha=0.0, logit_standardization=True)
    assert_close(scaled(s, t, labels, 2 * s), plain(s, t, labels, 2 * s))
