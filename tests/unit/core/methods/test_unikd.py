"""UniKD agrees with the hand-computed values of METHODS U1, its special cases, and a loop over single images."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ensdistill.methods.losses import UniKd
from ensdistill.methods.losses.losses import label_cross_entropy
from tests.unit.core.by_hand import kl, softmax

P = [[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.3, 0.6]]  # case U1: three teachers, label 0
Q = [0.5, 0.3, 0.2]
SECOND = [[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1]]
DISAGREEMENTS = {"jensen_shannon": 0.204151, "pairwise_kl": 0.660113, "variance": 0.131111, "deviation": 0.201791}
BELIEVES = ["probability", "inverse_loss", "others_losses"]
LABEL = torch.tensor([0])
UNLABELED = torch.tensor([-1])


def safe_log(*images: list[list[float]]) -> Tensor:
    """Returns teacher log-probabilities (M,B,c) of images, each given as a list of teachers."""
    return torch.tensor(images, dtype=torch.float64).transpose(0, 1).log()


def student(*images: list[float]) -> Tensor:
    return torch.tensor([images], dtype=torch.float64).log()


def hand(value: float | list[float]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def distillation(settings: UniKd, s: Tensor, t: Tensor, labels: Tensor) -> float:
    """Returns the loss without its label term."""
    return float(settings(s, t, labels, s) - label_cross_entropy(s, labels))


# --- U1 ---


@pytest.mark.parametrize(
    ("teacher_weighting", "expected"),
    [
        ("probability", [0.583333, 0.333333, 0.083333]),
        ("others_losses", [0.448718, 0.410256, 0.141026]),
        ("inverse_loss", [1 / 1.356675, 1 / 1.916291, 1 / 3.302585]),
    ],
)
def test_teacher_weights_equal_the_hand_computed_values(teacher_weighting: str, expected: list[float]) -> None:
    weights = UniKd(teacher_weighting=teacher_weighting).teacher_weights(safe_log(P), LABEL)[:, 0]
    assert_close(weights, hand(expected) / sum(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("sample_weighting", "expected"), [("probability", 0.55), ("inverse_loss", 0.625846)])
def test_the_weight_of_a_labeled_image_equals_the_hand_computed_value(sample_weighting: str, expected: float) -> None:
    assert_close(
        UniKd(sample_weighting=sample_weighting).label_weights(safe_log(P), LABEL), hand([expected]), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize(("disagreement", "expected"), DISAGREEMENTS.items())
def test_the_weight_of_an_unlabeled_image_equals_the_hand_computed_value(disagreement: str, expected: float) -> None:
    assert_close(UniKd(disagreement=disagreement).disagreements(safe_log(P)), hand([expected]), atol=2e-6, rtol=0)


def test_weights_divided_by_their_batch_mean_equal_the_hand_computed_values() -> None:
    t = safe_log(P, SECOND)
    assert_close(UniKd().disagreements(t)[1], hand(0.005240), atol=2e-6, rtol=0)
    assert_close(UniKd(normalize=True).disagreements(t), hand([1.949948, 0.050052]), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("labels", "expected"), [(LABEL, 0.006609), (UNLABELED, 0.004609)])
def test_the_distillation_term_equals_the_hand_computed_value(labels: Tensor, expected: float) -> None:
    assert distillation(UniKd(temperature=1.0), student(Q), safe_log(P), labels) == pytest.approx(expected, abs=2e-6)


def test_the_loss_of_a_labeled_image_is_cross_entropy_plus_weighted_distillation() -> None:
    loss = UniKd(temperature=1.0, labeled_weight=3.0)(student(Q), safe_log(P), LABEL, student(Q))
    assert float(loss) == pytest.approx(-math.log(0.5) + 3 * 0.006609, abs=5e-6)


def test_the_loss_of_an_unlabeled_image_is_weighted_distillation_only() -> None:
    loss = UniKd(temperature=1.0, unlabeled_weight=3.0)(student(Q), safe_log(P), UNLABELED, student(Q))
    assert float(loss) == pytest.approx(3 * 0.004609, abs=5e-6)


# --- special cases ---


@pytest.mark.parametrize("teacher_weighting", BELIEVES)
def test_a_single_teacher_has_weight_one(teacher_weighting: str) -> None:
    for p in P:
        assert UniKd(teacher_weighting=teacher_weighting).teacher_weights(safe_log([p]), LABEL).item() == 1


@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_single_teacher_has_zero_disagreement(disagreement: str, normalize: bool) -> None:
    settings = UniKd(disagreement=disagreement, normalize=normalize)
    assert not settings.disagreements(safe_log(P[:1], SECOND[:1])).any()


@pytest.mark.parametrize("teacher_weighting", BELIEVES)
@pytest.mark.parametrize("sample_weighting", ["probability", "inverse_loss"])
def test_with_one_teacher_the_weight_of_an_image_is_the_label_probability(
    teacher_weighting: str, sample_weighting: str
) -> None:
    v = UniKd(teacher_weighting=teacher_weighting, sample_weighting=sample_weighting).label_weights(
        safe_log([P[1]]), LABEL
    )
    expected = 0.4 if sample_weighting == "probability" else 1 / (1 - math.log(0.4))
    assert v.item() == pytest.approx(expected)


@pytest.mark.parametrize("teacher_weighting", BELIEVES)
def test_equal_teachers_have_equal_weights(teacher_weighting: str) -> None:
    weights = UniKd(teacher_weighting=teacher_weighting).teacher_weights(safe_log([P[0]] * 4), LABEL)
    assert_close(weights, torch.full((4, 1), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
@pytest.mark.parametrize("teachers", [2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_unlabeled_image_on_which_teachers_agree_has_weight_zero(
    disagreement: str, teachers: int, dtype: torch.dtype
) -> None:
    t = safe_log([P[0]] * teachers, [P[2]] * teachers).to(dtype)
    u = UniKd(disagreement=disagreement).disagreements(t)
    assert_close(u, torch.zeros(2, dtype=dtype), atol=1e-7, rtol=0)


@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
@pytest.mark.parametrize("teachers", [2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_normalized_weights_an_image_on_which_all_teachers_agree_has_weight_zero(
    disagreement: str, teachers: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    t = torch.randn(1, 50, 10, generator=generator, dtype=dtype).repeat(teachers, 1, 1)
    u = UniKd(disagreement=disagreement, normalize=True).disagreements(t)
    assert_close(u, torch.zeros_like(u), atol=0.01, rtol=0)


@pytest.mark.parametrize("teacher_weighting", ["probability", "others_losses"])
def test_a_teacher_that_is_wrong_with_certainty_has_weight_zero(teacher_weighting: str) -> None:
    t = torch.tensor([[[0.0, 500, 0]], [[1, 0, 0]]], dtype=torch.float64)
    assert_close(
        UniKd(teacher_weighting=teacher_weighting).teacher_weights(t, LABEL), hand([[0.0], [1.0]]), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("teacher_weighting", BELIEVES)
@pytest.mark.parametrize("sample_weighting", ["probability", "inverse_loss"])
def test_the_loss_is_finite_if_all_teachers_are_wrong_with_certainty(
    teacher_weighting: str, sample_weighting: str
) -> None:
    t = torch.tensor([[[0.0, 500, 0]], [[0, 0, 900]]])
    s = torch.zeros(1, 1, 3, requires_grad=True)
    loss = UniKd(teacher_weighting=teacher_weighting, sample_weighting=sample_weighting)(s, t, LABEL, s)
    loss.backward()
    assert loss.isfinite()
    assert s.grad.isfinite().all()


def test_inverse_loss_weights_are_inversely_proportional_to_the_losses_of_the_teachers() -> None:
    t = torch.tensor([[[0.0, 99, -999]], [[99, 0, -999]]], dtype=torch.float64)
    weights = UniKd(teacher_weighting="inverse_loss").teacher_weights(t, LABEL)
    assert_close(weights[:, 0], hand([0.01, 1.0]) / 1.01)


def test_weighted_sums_are_divided_by_the_number_of_images_and_not_by_the_sum_of_weights() -> None:
    wrong = [[1e-12, 0.5, 0.5 - 1e-12]] * 3
    alone = distillation(UniKd(temperature=1.0), student(Q), safe_log(P), LABEL)
    both = distillation(UniKd(temperature=1.0), student(Q, Q), safe_log(P, wrong), torch.tensor([0, 0]))
    assert both == pytest.approx(alone / 2, rel=1e-9)


def test_labeled_and_unlabeled_images_are_averaged_separately() -> None:
    settings = UniKd(temperature=2.0)
    s, t = student(Q, Q[::-1], Q), safe_log(P, SECOND, SECOND)
    mixed = distillation(settings, s, t, torch.tensor([0, -1, -1]))
    labeled = distillation(settings, s[:, :1], t[:, :1], LABEL)
    unlabeled = distillation(settings, s[:, 1:], t[:, 1:], torch.tensor([-1, -1]))
    assert mixed == pytest.approx(labeled + unlabeled)


@pytest.mark.parametrize("settings", [UniKd(labeled_weight=0.0, unlabeled_weight=0.0)])
def test_with_zero_weights_only_the_label_term_remains(settings: UniKd) -> None:
    s, t, labels = student(Q, Q), safe_log(P, SECOND), torch.tensor([1, -1])
    assert float(settings(s, t, labels, s)) == pytest.approx(-math.log(0.3))


@pytest.mark.parametrize("labels", [LABEL, UNLABELED])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_gradient_treats_all_weights_as_constants(labels: Tensor, temperature: float) -> None:
    settings = UniKd(temperature=temperature)
    s, t = student(Q).requires_grad_(), safe_log(P)
    (settings(s, t, labels, s) - label_cross_entropy(s, labels)).backward()
    tempered = (t / temperature).softmax(-1)
    if labels is LABEL:
        weight, target = 0.55, (hand([[0.583333], [0.333333], [0.083333]])[:, None] * tempered).sum(0)
    else:
        weight, target = 0.204151, tempered.mean(0)
    q = (s.detach() / temperature).softmax(-1)
    assert_close(s.grad, (weight * temperature * (q - target)), atol=1e-5, rtol=0)


# --- a loop over single images ---


def mixture(weights: list[float], rows: list[list[float]]) -> list[float]:
    return [sum(w * p for w, p in zip(weights, column, strict=True)) for column in zip(*rows, strict=True)]


def belief(losses: list[float], teacher_weighting: str) -> list[float]:
    if teacher_weighting == "probability":
        raw = [math.exp(-loss) for loss in losses]
    elif teacher_weighting == "inverse_loss":
        raw = [1 / (1 + loss) for loss in losses]
    else:
        raw = [1 - math.exp(loss) / sum(map(math.exp, losses)) for loss in losses]
    return [w / sum(raw) for w in raw]


def apart(p: list[list[float]], disagreement: str) -> float:
    m, classes = len(p), len(p[0])
    average = mixture([1 / m] * m, p)
    variances = [sum((p[i][k] - average[k]) ** 2 for i in range(m)) / m for k in range(classes)]
    return {
        "jensen_shannon": sum(kl(row, average) for row in p) / m,
        "pairwise_kl": sum(kl(p[i], p[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1)),
        "variance": sum(variances),
        "deviation": sum(map(math.sqrt, variances)) / classes,
    }[disagreement]


@pytest.mark.parametrize("teacher_weighting", BELIEVES)
@pytest.mark.parametrize("sample_weighting", ["probability", "inverse_loss"])
@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_equals_a_loop_over_images(
    teacher_weighting: str, sample_weighting: str, disagreement: str, normalize: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    s, t = (2 * torch.randn(n, 6, 4, generator=generator, dtype=torch.float64) for n in (2, 3))
    labels, temperature = [0, -1, 3, -1, 2, -1], 2.5
    task, on, off, us = [], [], [], []
    for b, label in enumerate(labels):
        rows = t[:, b].tolist()
        p, tempered = [softmax(row) for row in rows], [softmax(row, temperature) for row in rows]
        targets = [1 / 3] * 3 if label < 0 else belief([-math.log(row[label]) for row in p], teacher_weighting)
        divergence = sum(kl(mixture(targets, tempered), softmax(s[k, b].tolist(), temperature)) for k in range(2)) / 2
        if label < 0:
            us.append(apart(p, disagreement))
            off.append(temperature**2 * divergence)
        else:
            right = mixture(targets, p)[label]
            on.append((right if sample_weighting == "probability" else 1 / (1 - math.log(right))) * divergence)
            task.append(-sum(math.log(softmax(s[k, b].tolist())[label]) for k in range(2)) / 2)
    us = [u / (sum(us) / 3) for u in us] if normalize else us
    expected = sum(task) / 3 + 0.5 * temperature**2 * sum(on) / 3
    expected += 2 * sum(u * loss for u, loss in zip(us, off, strict=True)) / 3
    settings = UniKd(
        temperature=temperature,
        labeled_weight=0.5,
        unlabeled_weight=2.0,
        teacher_weighting=teacher_weighting,
        sample_weighting=sample_weighting,
        disagreement=disagreement,
        normalize=normalize,
    )
    assert float(settings(s, t, torch.tensor(labels), s)) == pytest.approx(expected)


RULED_OUT = torch.tensor([[[0.0, -torch.inf, 1]], [[2.0, -torch.inf, 0]], [[1.0, -torch.inf, 0]]])


@pytest.mark.parametrize("teacher_weighting", ["probability", "inverse_loss", "others_losses"])
def test_teachers_with_label_probability_zero_have_equal_weights(teacher_weighting: str) -> None:
    weights = UniKd(teacher_weighting=teacher_weighting).teacher_weights(RULED_OUT, torch.tensor([1]))
    assert_close(weights, torch.full((3, 1), 1 / 3))


@pytest.mark.parametrize("teacher_weighting", ["probability", "inverse_loss", "others_losses"])
def test_a_zero_label_probability_gives_a_teacher_zero_weight_if_that_of_another_teacher_is_positive(
    teacher_weighting: str,
) -> None:
    teachers = torch.tensor([[[0.0, 0, 0]], [[0.0, -torch.inf, 0]]])
    weights = UniKd(teacher_weighting=teacher_weighting).teacher_weights(teachers, torch.tensor([1]))
    assert_close(weights, torch.tensor([[1.0], [0.0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("disagreement", ["jensen_shannon", "pairwise_kl", "variance", "deviation"])
def test_a_class_with_probability_zero_for_all_teachers_adds_no_disagreement(disagreement: str) -> None:
    piece = UniKd(disagreement=disagreement)
    without = piece.disagreements(RULED_OUT[..., [0, 2]])
    classes = 3 / 2 if disagreement == "deviation" else 1  # a mean over classes
    assert_close(piece.disagreements(RULED_OUT) * classes, without)


@pytest.mark.parametrize("label", [0, 1, -1])
@pytest.mark.parametrize("teacher_weighting", ["probability", "inverse_loss", "others_losses"])
@pytest.mark.parametrize("disagreement", ["jensen_shannon", "pairwise_kl"])
def test_loss_and_gradient_are_finite_if_teachers_assign_probability_zero_to_classes(
    label: int, teacher_weighting: str, disagreement: str
) -> None:
    some = torch.tensor([[[0.0, 0, -torch.inf]], [[-torch.inf, 0.0, 1]], [[0.0, -torch.inf, 0]]])
    for teachers in (RULED_OUT, some):
        student = torch.zeros(1, 1, 3, requires_grad=True)
        loss = UniKd(teacher_weighting=teacher_weighting, disagreement=disagreement)(
            student, teachers, torch.tensor([label]), student
        )
        loss.backward()
        assert bool(loss.isfinite())
        assert bool(student.grad.isfinite().all())
