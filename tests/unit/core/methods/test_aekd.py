"""AE-KD agrees with METHODS A1 to A4; its quadratic program agrees with scipy and the optimality conditions."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.data import DataSplits
from ensdistill.errors import DataError
from ensdistill.methods.losses import AeKd, Averaged, Labels
from ensdistill.methods.losses.min_norm import min_norm_weights
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.students import Single
from ensdistill.training.loop import distill
from ensdistill.training.step import StepContext, distill_step
from tests.unit.core.core_stand_ins import streams, tiny_config

A1 = [[1.0, 0], [0, 2]]
A2 = [[1.0, 0], [2, 1], [-0.5, 1]]
A3 = [[1.0, 0], [0, 1], [-1, -1]]
STUDENT = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]], dtype=torch.float64)  # case A4
TEACHERS = torch.tensor([[[2.0, 0, 0], [0, 2, 0]], [[0, 2, 0], [0, 0, 2]]], dtype=torch.float64)
NO_LABELS = torch.tensor([-1, -1])


def solve(vectors: list[list[float]] | np.ndarray, cap: float) -> np.ndarray:
    g = np.asarray(vectors)
    return min_norm_weights(g @ g.T, cap)


def square_norm(vectors: list[list[float]] | np.ndarray, weights: np.ndarray) -> float:
    return float(np.square(weights @ np.asarray(vectors)).sum())


# --- A1 to A3: hand-computed values ---


@pytest.mark.parametrize(
    ("cap", "weights", "lowest"),
    [(1, [0.8, 0.2], 0.8), (0.75, [0.75, 0.25], 0.8125), (0.6, [0.6, 0.4], 1.0), (0.5, [0.5, 0.5], 1.25)],
)
def test_weights_of_two_teachers_equal_those_of_case_a1(cap: float, weights: list[float], lowest: float) -> None:
    assert solve(A1, cap) == pytest.approx(weights, abs=1e-9)
    assert square_norm(A1, solve(A1, cap)) == pytest.approx(lowest)


@pytest.mark.parametrize(
    ("cap", "weights", "lowest"),
    [
        (1, [7 / 13, 0, 6 / 13], 0.307692),
        (0.6, [7 / 13, 0, 6 / 13], 0.307692),
        (0.5, [0.5, 0, 0.5], 0.3125),
        (1 / 3, [1 / 3, 1 / 3, 1 / 3], 1.138889),
    ],
)
def test_weights_of_three_teachers_equal_those_of_case_a2(cap: float, weights: list[float], lowest: float) -> None:
    assert solve(A2, cap) == pytest.approx(weights, abs=1e-9)
    assert square_norm(A2, solve(A2, cap)) == pytest.approx(lowest, abs=1e-6)


@pytest.mark.parametrize("cap", [1, 0.6, 0.4, 1 / 3])
def test_opposite_teachers_are_weighted_equally_as_in_case_a3(cap: float) -> None:
    assert solve(A3, cap) == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=1e-9)
    assert square_norm(A3, solve(A3, cap)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("cap", [1, 0.8, 0.55, 0.5])
def test_weights_of_two_random_teachers_match_the_closed_form_solution(cap: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        g = rng.normal(size=(2, 3)) + 0.5
        gram = g @ g.T
        free = (gram[1, 1] - gram[0, 1]) / (gram[0, 0] + gram[1, 1] - 2 * gram[0, 1])
        first = np.clip(free, 1 - cap, cap)
        assert solve(g, cap) == pytest.approx([first, 1 - first], abs=1e-8)


@pytest.mark.parametrize("cap", [1, 0.5, 0.1])
def test_a_single_teacher_has_weight_one(cap: float) -> None:
    assert solve([[3.0, 4]], cap) == pytest.approx([1])


def test_teachers_with_zero_gradients_are_weighted_equally() -> None:
    assert solve(np.zeros((4, 3)), 0.6) == pytest.approx([0.25] * 4)


def test_a_teacher_with_zero_gradient_has_the_largest_allowed_weight() -> None:
    assert solve([[0.0, 0], [1, 2], [3, 1]], 1) == pytest.approx([1, 0, 0], abs=1e-9)
    assert solve([[0.0, 0], [1, 0], [0, 1]], 0.6) == pytest.approx([0.6, 0.2, 0.2], abs=1e-9)


# --- random problems ---

KINDS = ["general", "rank_deficient", "duplicated", "nearly_equal", "small_integers", "of_unlike_length", "cancelling"]


def problems(kind: str, count: int = 12) -> list[tuple[np.ndarray, float]]:
    """Returns vectors g (M,c), each with a cap."""
    rng = np.random.default_rng(KINDS.index(kind))
    made = []
    for n in range(count):
        m, c = int(rng.integers(2, 9)), int(rng.integers(2, 9))
        g = rng.normal(size=(m, c))
        if kind == "rank_deficient":
            g = rng.normal(size=(m, 1)) @ rng.normal(size=(1, c))
        elif kind == "duplicated":
            g[-1] = g[0]
        elif kind == "nearly_equal":
            g = g[:1] + 1e-3 * g
        elif kind == "small_integers":
            g = rng.integers(-1, 2, size=(m, c)).astype(float)
        elif kind == "of_unlike_length":
            g *= 10 ** rng.uniform(-2, 2, size=(m, 1))
        elif kind == "cancelling":
            g -= g.mean(0)
        made.append((g, [1.0, 1 / m, 0.6, 1 / max(1, m - 1), rng.uniform(1 / m, 1)][n % 5]))
    return made


def scaled(g: np.ndarray) -> np.ndarray:
    """Returns vectors whose Gram matrix has a mean diagonal of one, so that one tolerance fits all problems."""
    return g / np.sqrt(max(np.square(g).sum(1).mean(), 1e-30))


every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_weights_are_feasible_and_the_weighted_gradient_is_at_most_as_long_as_the_plain_mean(kind: str) -> None:
    for g, cap in problems(kind, 40):
        a, m = solve(g, cap), len(g)
        assert a.sum() == pytest.approx(1, abs=1e-12)
        assert a.min() >= 0
        assert a.max() <= max(cap, 1 / m) + 1e-9
        assert square_norm(scaled(g), a) <= square_norm(scaled(g), np.full(m, 1 / m)) + 1e-12


@every_kind
def test_weights_satisfy_the_optimality_conditions(kind: str) -> None:
    for g, cap in problems(kind, 40):
        cap, g = max(cap, 1 / len(g)), scaled(g)
        a = solve(g, cap)
        slopes = g @ (a @ g)
        may_grow, may_shrink = slopes[a < cap - 1e-7], slopes[a > 1e-7]
        if len(may_grow):
            assert may_grow.min() >= may_shrink.max() - 1e-7


@every_kind
def test_without_a_cap_the_negative_weighted_mean_is_a_descent_direction_of_every_teacher(kind: str) -> None:
    for g, _ in problems(kind, 40):
        g = scaled(g)
        d = solve(g, 1.0) @ g
        assert (g @ d >= d @ d - 1e-7).all()


@every_kind
def test_the_objective_agrees_with_that_of_the_scipy_slsqp_solver(kind: str) -> None:
    for g, cap in problems(kind):
        cap, g, m = max(cap, 1 / len(g)), scaled(g), len(g)
        gram = g @ g.T
        found = minimize(
            lambda a, gram=gram: a @ gram @ a / 2,
            np.full(m, 1 / m),
            jac=lambda a, gram=gram: gram @ a,
            bounds=[(0, cap)] * m,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        assert square_norm(g, solve(g, cap)) <= 2 * found.fun + 1e-9
        assert square_norm(g, solve(g, cap)) == pytest.approx(2 * found.fun, abs=1e-6)


@every_kind
def test_without_a_cap_the_shortest_vector_agrees_with_that_of_the_scipy_nnls_solver(kind: str) -> None:
    # min |G^T a|^2 + (sum a - 1)^2 over a >= 0 is, up to a scale factor, the shortest vector of the convex hull.
    for g, _ in problems(kind, 30):
        g = scaled(g)
        raw, _ = nnls(np.vstack([g.T, np.ones(len(g))]), np.append(np.zeros(g.shape[1]), 1))
        expected = raw / raw.sum()
        assert solve(g, 1.0) @ g == pytest.approx(expected @ g, abs=1e-4)
        if kind in ("general", "of_unlike_length") and len(g) <= g.shape[1]:  # independent, so the solution is unique
            assert square_norm(g, solve(g, 1.0)) == pytest.approx(square_norm(g, expected), abs=1e-9)


@every_kind
@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1e-6, 1e6, 1e150])
def test_weights_do_not_depend_on_the_scale_of_the_gradients(kind: str, scale: float) -> None:
    for g, cap in problems(kind, 5):
        gram = g @ g.T
        power = 2.0 ** round(math.log2(scale))  # exact in floating point, so rounding is equal
        assert min_norm_weights(gram * power, cap) == pytest.approx(min_norm_weights(gram, cap), abs=1e-9)


def test_weights_of_tiny_gradients_are_exact() -> None:
    # The official solver fails here: with the Gram matrix of A2 times 1e-8 it returns [.6, .4, 0].
    for scale in (1e-6, 1e-8, 1e-20):
        gram = np.asarray(A2) @ np.asarray(A2).T * scale
        assert min_norm_weights(gram, 0.6) == pytest.approx([7 / 13, 0, 6 / 13], abs=1e-9)


def test_weights_are_exact_if_one_gradient_is_ten_million_times_longer_than_all_others() -> None:
    g = np.array([[1e7, 0], [1, 1], [-1, 0.5]])
    weights = solve(g, 1)
    assert weights == pytest.approx([1e-7, 0, 1 - 1e-7], rel=1e-6)
    assert square_norm(g, weights) == pytest.approx(0.25)


def lowest_in_fractions(g: np.ndarray, cap: float) -> Fraction:
    """Returns the exact minimum of |sum a_m g_m|^2, by Cramer's rule: each weight is 0, at the cap or between."""
    rows = [[Fraction(x) for x in row] for row in g.tolist()]
    gram = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    found = []
    for where in itertools.product((Fraction(0), Fraction(cap), None), repeat=len(g)):
        free = [m for m, value in enumerate(where) if value is None]
        a = [value or Fraction(0) for value in where]
        kkt = [[gram[i][j] for j in free] + [Fraction(1)] for i in free] + [[Fraction(1)] * len(free) + [Fraction(0)]]
        right = [-sum(gram[i][j] * a[j] for j in range(len(g))) for i in free] + [1 - sum(a)]
        if free and not (solution := _eliminate(kkt, right)):
            continue
        for m, value in zip(free, solution if free else [], strict=False):
            a[m] = value
        if sum(a) == 1 and all(0 <= value <= Fraction(cap) for value in a):
            found.append(sum(a[i] * a[j] * gram[i][j] for i in range(len(g)) for j in range(len(g))))
    return min(found)


def _eliminate(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for n in range(len(rows)):
        pivot = next((r for r in range(n, len(rows)) if rows[r][n]), None)
        if pivot is None:
            return []
        rows[n], rows[pivot] = rows[pivot], rows[n]
        rows[n] = [x / rows[n][n] for x in rows[n]]
        for r in range(len(rows)):
            if r != n:
                rows[r] = [x - rows[r][n] * y for x, y in zip(rows[r], rows[n], strict=True)]
    return [row[-1] for row in rows]


def test_weights_are_exact_for_gradients_of_any_length() -> None:
    rng = np.random.default_rng(1)
    for n in range(40):
        m = int(rng.integers(2, 4))
        g = rng.normal(size=(m, 3)) * 10 ** rng.uniform(-7, 7, size=(m, 1))
        if n % 5 == 0:
            g[1] = -g[0] * 1e5  # collinear
        cap = float(rng.choice([1, 0.75, 0.6]))
        weights = solve(g, cap)
        assert weights.sum() == pytest.approx(1)
        assert (weights.min() >= 0) & (weights.max() <= cap * (1 + 1e-9))
        found = [sum(Fraction(a) * Fraction(x) for a, x in zip(weights, column, strict=True)) for column in g.T]
        rounding = 1e-10 * (weights * np.linalg.norm(g, axis=1)).max()  # of vectors that cancel each other
        lowest = math.sqrt(lowest_in_fractions(g, cap))
        assert math.sqrt(sum(x * x for x in found)) == pytest.approx(lowest, rel=1e-6, abs=rounding)


def test_permuting_the_teachers_permutes_the_weights() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        g, cap = rng.normal(size=(5, 8)), rng.uniform(0.2, 1)  # independent, so the solution is unique
        order = rng.permutation(5)
        assert solve(g[order], cap) == pytest.approx(solve(g, cap)[order], abs=1e-8)


def test_weights_of_many_teachers_are_optimal() -> None:
    rng = np.random.default_rng(0)
    g = rng.normal(size=(64, 100)) + 0.5
    a = solve(g, 0.03)
    slopes = g @ (a @ g)
    assert a.sum() == pytest.approx(1)
    assert slopes[a < 0.03 - 1e-7].min() >= slopes[a > 1e-7].max() - 1e-6 * np.square(g).sum(1).mean()


# --- A4: from logits ---


def kl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns KD_m in explicit form: T^2 times the mean over images of KL(teacher || student)."""
    p, log_q = (teacher / temperature).softmax(-1), (student / temperature).log_softmax(-1)
    return temperature**2 * (p * (p.log() - log_q)).sum() / len(student)


def random_logits(members: int, seed: int, images: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(members, images, 5, generator=generator, dtype=torch.float64)


def test_directions_of_case_a4_equal_the_hand_computed_values() -> None:
    expected = [[[-0.030436, -0.030436, 0.060871], [0.147358, -0.030436, -0.116923]]]
    assert_close(AeKd().directions(STUDENT, TEACHERS), torch.tensor(expected).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("tolerance", "first"), [(1.0, 0.743222), (0.6, 0.6)])
def test_weights_of_case_a4_equal_the_hand_computed_values(tolerance: float, first: float) -> None:
    weights = AeKd(tolerance=tolerance).teacher_weights(STUDENT, TEACHERS)
    assert_close(weights, torch.tensor([[first, 1 - first]]).double(), atol=1e-6, rtol=0)


def test_the_loss_of_case_a4_equals_the_hand_computed_value() -> None:
    loss = AeKd(teacher_weight=1.0)(STUDENT, TEACHERS, NO_LABELS, STUDENT)
    assert_close(loss, torch.tensor(0.407012).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("subnetworks", "teachers"), [(1, 1), (1, 4), (3, 2)])
def test_the_direction_of_a_teacher_is_the_mean_gradient_of_its_loss(
    temperature: float, subnetworks: int, teachers: int
) -> None:
    student, t = random_logits(subnetworks, 0), random_logits(teachers, 1)
    directions = AeKd(temperature=temperature).directions(student, t)
    for k in range(subnetworks):
        for m in range(teachers):
            s = student[k].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(kl_loss(s, t[m], temperature), s)
            assert_close(directions[k, m], gradient.mean(0))


@pytest.mark.parametrize("tolerance", [1.0, 0.6, 0.3])
def test_loss_and_gradient_treat_the_weights_as_constants(tolerance: float) -> None:
    settings = AeKd(temperature=3.0, label_weight=0.7, teacher_weight=1.3, tolerance=tolerance)
    s, t, labels = random_logits(2, 0).requires_grad_(), random_logits(4, 1), torch.tensor([0, 1, -1, 2, -1, 4])
    weights = settings.teacher_weights(s, t)
    assert not weights.requires_grad
    losses = torch.stack([torch.stack([kl_loss(s[k], t[m], 3.0) for m in range(4)]) for k in range(2)])
    expected = 0.7 * Labels()(s, t, labels, s) + 1.3 * (weights * losses).sum() / 2
    loss = settings(s, t, labels, s)
    assert_close(loss, expected)
    assert_close(torch.autograd.grad(loss, s), torch.autograd.grad(expected, s))


def test_every_subnetwork_has_separate_teacher_weights() -> None:
    s, t = random_logits(3, 0), random_logits(4, 1)
    together = AeKd(tolerance=0.6).teacher_weights(s, t)
    for k in range(3):
        assert_close(together[k : k + 1], AeKd(tolerance=0.6).teacher_weights(s[k : k + 1], t))
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("teachers", [1, 2, 5])
def test_the_smallest_tolerance_gives_the_mean_of_all_teacher_losses(teachers: int) -> None:
    s, t, labels = random_logits(2, 0).requires_grad_(), random_logits(teachers, 1), torch.tensor([0, 1, -1, 2, -1, 4])
    loss = AeKd(label_weight=0.1, teacher_weight=0.9, tolerance=1 / teachers)(s, t, labels, s)
    expected = Averaged(alpha=0.9, average="losses")(s, t, labels, s)
    assert_close(loss, expected)
    assert_close(torch.autograd.grad(loss, s), torch.autograd.grad(expected, s))


def test_a_tolerance_below_1_over_m_also_gives_the_mean_loss() -> None:
    weights = AeKd(tolerance=0.1).teacher_weights(random_logits(1, 0), random_logits(4, 1))
    assert_close(weights, torch.full((1, 4), 0.25).double())


def test_unlabeled_images_are_included_in_the_distillation_term() -> None:
    s, t = random_logits(1, 0), random_logits(2, 1)
    losses = [AeKd(label_weight=0.0)(s, t, labels, s) for labels in (torch.full((6,), -1), torch.zeros(6).long())]
    assert losses[0] == losses[1] > 0


def test_a_step_with_aekd_weights_reduces_every_teacher_loss_if_the_student_is_close_to_all_teachers() -> None:
    s = random_logits(1, 0)
    directions = AeKd().directions(s, s + 1e-6 * random_logits(3, 1))[0]
    d = AeKd(tolerance=1.0).teacher_weights(s, s + 1e-6 * random_logits(3, 1))[0] @ directions
    assert (directions @ d >= d @ d * (1 - 1e-6)).all()


# --- in a training step ---


class Calls(nn.Module):
    """A linear network that counts its forward and backward passes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        nn.init.normal_(self.linear.weight, generator=torch.Generator().manual_seed(seed))
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        logits: Tensor = self.linear(x.flatten(1))
        if logits.requires_grad:
            logits.register_hook(self._passed)
        return logits

    def _passed(self, gradient: Tensor) -> None:
        self.backwards += 1


def test_a_step_requires_one_forward_pass_per_network_and_one_backward_pass_of_the_student() -> None:
    config = tiny_config("loss.kind=aekd")
    networks, own = [Calls(m) for m in range(3)], Calls(9)
    student = Single()(own)
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    optimizer = config.training.new_optimizer(student)
    average = config.averaging(student)
    ensemble = TeacherEnsemble(networks, 10, "x")
    context = StepContext(config, student, optimizer, average, streams())
    distill_step(context, ensemble, images, labels, 0.5)
    assert (own.forwards, own.backwards) == (1, 1)
    assert [(network.forwards, network.backwards) for network in ensemble.networks] == [(1, 0)] * 3


class NoNumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 10), float("nan"))


def test_the_error_names_the_teachers_with_nan_logits_and_not_the_learning_rate(digits: DataSplits) -> None:
    ensemble = TeacherEnsemble([NoNumber(), NoNumber()], 10, "broken")
    with pytest.raises(DataError, match="teacher 1"):
        next(distill(tiny_config("loss.kind=aekd"), ensemble, digits))
