"""Dirichlet students agree with the cases of METHODS section 6, torch.distributions, quadrature and random samples."""

import math
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import beta as beta_distribution
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence
from torch.testing import assert_close

from ensdistill.data import DataSplits
from ensdistill.methods.losses import End2, Labels, ProxyEnd2
from ensdistill.training.new_student import new_student
from tests.unit.core.core_stand_ins import tiny_config

P = [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]
MEMBERS = torch.tensor(P, dtype=torch.float64)[:, None].log()
Z = torch.tensor([[[0.0, 0.5, 1.0]]], dtype=torch.float64)  # outputs of a network
BETA = torch.tensor([3.414660, 3.043174, 2.114458], dtype=torch.float64)
NO_LABEL = torch.tensor([-1])


def hand(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def loss(settings: End2 | ProxyEnd2, student: Tensor, teachers: Tensor) -> Tensor:
    return settings(student, teachers, NO_LABEL.expand(student.shape[1]), student)


def proxy(divergence: str, outputs: Tensor, teachers: Tensor = MEMBERS) -> Tensor:
    settings = ProxyEnd2(divergence=divergence)
    return loss(settings, settings.head()(outputs), teachers)


def random_logits(members: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(members, 5, 4, generator=generator, dtype=torch.float64)


# --- EnD^2 ---


def test_the_end2_loss_equals_the_hand_computed_value() -> None:
    student = hand([[[2.0, 3, 5]]]).log()
    assert_close(loss(End2(smoothing=0.0), student, MEMBERS), hand(1.224328), atol=2e-6, rtol=0)


def test_the_predictive_mean_of_end2_is_the_softmax_of_the_logits() -> None:
    assert End2().head() is None
    z = random_logits(1, 0)
    assert_close(Dirichlet(z.exp()).mean, z.softmax(-1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("smoothing", [0.0, 1e-4, 0.2])
@pytest.mark.parametrize(("subnetworks", "teachers"), [(1, 3), (2, 1)])
def test_the_end2_loss_equals_the_negative_log_density_computed_by_torch(
    temperature: float, smoothing: float, subnetworks: int, teachers: int
) -> None:
    s, t = random_logits(subnetworks, 0), random_logits(teachers, 1)
    settings = End2(temperature=temperature, smoothing=smoothing)
    p = (1 - smoothing) * (t / temperature).softmax(-1) + smoothing / 4
    terms = [Dirichlet((s[k] / temperature).exp()).log_prob(p[m]) for k in range(subnetworks) for m in range(teachers)]
    assert_close(loss(settings, s, t), -torch.stack(terms).mean())


def test_the_end2_loss_is_minimal_at_the_distribution_of_the_teacher_predictions() -> None:
    torch.manual_seed(0)
    alpha = hand([2.0, 3, 5])
    teachers = Dirichlet(alpha).sample((5000, 1)).log()
    settings = End2(smoothing=0.0)
    best = loss(settings, alpha.log().view(1, 1, 3), teachers)
    for shift in ([0.2, 0, 0], [0, -0.2, 0], [0, 0, 0.2], [0.2, 0.2, 0.2], [-0.2, -0.2, -0.2]):
        assert loss(settings, (alpha.log() + hand(shift)).view(1, 1, 3), teachers) > best


def test_smoothing_keeps_the_loss_finite_if_a_teacher_is_certain() -> None:
    s = torch.zeros(1, 1, 3, requires_grad=True)
    value = loss(End2(), s, torch.tensor([[[800.0, 0, -800]]]))
    value.backward()
    assert value.isfinite()
    assert s.grad.isfinite().all()


# --- Proxy-EnD^2 ---


def test_the_head_returns_the_logarithm_of_alpha() -> None:
    assert_close(ProxyEnd2().head()(Z).exp(), hand([[[2, 2.648721, 3.718282]]]), atol=1e-6, rtol=0)


def test_the_softmax_of_the_head_output_is_the_predictive_mean() -> None:
    mean = ProxyEnd2().head()(Z).softmax(-1)
    assert_close(mean, hand([[[0.239034, 0.316568, 0.444398]]]), atol=1e-6, rtol=0)
    assert_close(mean, Dirichlet(Z.exp() + 1).mean)


@pytest.mark.parametrize(("divergence", "expected"), [("proxy", 1.045871), ("reverse", 1.506811)])
def test_the_proxy_loss_equals_the_hand_computed_value(divergence: str, expected: float) -> None:
    assert_close(proxy(divergence, Z), hand(expected), atol=2e-6, rtol=0)


def test_the_proxy_loss_is_zero_if_the_student_equals_the_proxy_target() -> None:
    outputs = (BETA - 1).log().view(1, 1, 3)
    assert_close(proxy("proxy", outputs), hand(0.0), atol=1e-6, rtol=0)


def target(teachers: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean probabilities (B,c) and the precision beta_0 (B,1) of the proxy, as loops over teachers."""
    p = teachers.softmax(-1)
    mean = sum(p) / len(p)
    apart = sum((mean * (mean.log() - one.log())).sum(-1) for one in p) / len(p)
    return mean, ((p.shape[-1] - 1) / (2 * apart))[:, None]


@pytest.mark.parametrize(("subnetworks", "teachers"), [(1, 3), (2, 4)])
def test_the_proxy_loss_equals_the_dirichlet_kl_divergence_computed_by_torch(subnetworks: int, teachers: int) -> None:
    z, t = random_logits(subnetworks, 0), random_logits(teachers, 1)
    mean, precision = target(t)
    terms = [kl_divergence(Dirichlet(mean * precision + 1), Dirichlet(one.exp() + 1)) for one in z]
    assert_close(proxy("proxy", z, t), torch.stack(terms).mean())


def test_the_reverse_loss_equals_the_mean_over_samples_from_the_student_distribution() -> None:
    torch.manual_seed(0)
    z, t = random_logits(1, 0)[:, :2], random_logits(3, 1)[:, :2]
    mean, precision = target(t)
    student = Dirichlet(z[0].exp() + 1)
    draws = student.sample((400_000,))
    # E[-sum p ln pi] - H / (beta_0 + c), with H = E[-ln Dir(pi)]
    each = -(mean * draws.log()).sum(-1) + student.log_prob(draws) / (precision.squeeze(-1) + 4)
    mean_of_draws, error = each.mean(1).mean(), each.mean(1).std() / math.sqrt(len(each))
    assert abs(float(proxy("reverse", z, t) - mean_of_draws)) < 4 * float(error)
    assert float(error) < 0.005


def test_for_two_classes_both_divergences_agree_with_numerical_quadrature() -> None:
    z, t = hand([[[0.3, -0.4]]]), hand([[[0.2, 0.9]], [[-0.5, 0.4]]])
    mean, precision = target(t)
    (p, other), beta_0 = mean[0].tolist(), precision.item()
    student = beta_distribution(math.exp(0.3) + 1, math.exp(-0.4) + 1)
    proxy_target = beta_distribution(p * beta_0 + 1, other * beta_0 + 1)

    def integral(integrand: Any) -> float:
        return quad(integrand, 0, 1, limit=200)[0]

    forward = integral(lambda x: proxy_target.pdf(x) * (proxy_target.logpdf(x) - student.logpdf(x)))
    entropy = -integral(lambda x: student.pdf(x) * student.logpdf(x))
    expected = -integral(lambda x: student.pdf(x) * (p * math.log(x) + other * math.log(1 - x)))
    assert float(proxy("proxy", z, t)) == pytest.approx(forward, abs=1e-6)
    assert float(proxy("reverse", z, t)) == pytest.approx(expected - entropy / (beta_0 + 2), abs=1e-6)


def test_teacher_logits_are_divided_by_the_temperature_before_any_other_operation() -> None:
    z, t = random_logits(1, 0), random_logits(3, 1)
    for divergence in ("proxy", "reverse"):
        tempered, plain = ProxyEnd2(temperature=3.0, divergence=divergence), ProxyEnd2(divergence=divergence)
        assert_close(loss(tempered, z, t), loss(plain, z, t / 3))


@pytest.mark.parametrize("divergence", ["proxy", "reverse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_and_its_gradient_are_finite_if_all_teachers_agree(divergence: str, dtype: torch.dtype) -> None:
    z = Z.to(dtype).requires_grad_()
    value = proxy(divergence, z, MEMBERS[:1].repeat(3, 1, 1).to(dtype))
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("divergence", ["proxy", "reverse"])
def test_gradient_descent_on_the_loss_converges_to_the_mean_of_the_teachers(divergence: str) -> None:
    z = torch.zeros(1, 1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = proxy(divergence, z)
        value.backward()
        return value

    optimizer.step(closure)
    found = ProxyEnd2().head()(z.detach()).exp()[0, 0]
    if divergence == "proxy":
        assert_close(found, BETA, atol=1e-3, rtol=0)
    assert (found / found.sum()).argsort().tolist() == MEMBERS.exp().mean(0)[0].argsort().tolist()


# --- both losses ---


@pytest.mark.parametrize("settings", [End2(alpha=0.0), ProxyEnd2(alpha=0.0)])
def test_with_alpha_zero_only_the_label_term_remains(settings: End2 | ProxyEnd2) -> None:
    s, t, labels = random_logits(2, 0), random_logits(3, 1), torch.tensor([0, -1, 2, 3, -1])
    assert_close(settings(s, t, labels, s), Labels()(s, t, labels, s))


@pytest.mark.parametrize("kind", ["end2", "proxy_end2", "averaged"])
def test_the_student_has_the_head_required_by_its_loss(kind: str, digits: DataSplits) -> None:
    images = digits.train[slice(0, 4)][0]
    plain = new_student(tiny_config(), digits).eval()(images)
    student = new_student(tiny_config(f"loss.kind={kind}"), digits)
    expected = (1 + plain.exp()).log() if kind == "proxy_end2" else plain
    assert_close(student.eval()(images), expected)
    assert_close(student.merged().eval()(images), expected[0])


@pytest.mark.parametrize("piece", [ProxyEnd2(), ProxyEnd2(divergence="proxy"), End2(), End2(smoothing=0.0)], ids=str)
def test_loss_and_gradient_are_finite_if_all_teachers_assign_probability_zero_to_a_class(
    piece: ProxyEnd2 | End2,
) -> None:
    teachers = torch.tensor([[[0.0, -torch.inf, 1]], [[2.0, -torch.inf, 0]]])
    student = torch.zeros(1, 1, 3, requires_grad=True)
    loss = piece(student, teachers, torch.tensor([0]), student)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(student.grad.isfinite().all())


def test_a_class_with_probability_zero_for_all_teachers_does_not_change_the_divergence() -> None:
    # KL(Dir(beta) || Dir(beta)) = 0: the matching student, with an additional class with beta = 0 * beta_0 + 1 = 1.
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    mean = p.mean(0)
    apart = float((mean * (mean.log() - p.log())).sum(-1).mean())
    precision = 2 / (2 * apart)  # (c - 1) / (2 MKL) for three classes
    beta = torch.tensor([*(mean * precision + 1), 1.0], dtype=torch.float64)
    teachers = torch.cat([p.log(), torch.full((2, 1), -torch.inf, dtype=torch.float64)], -1).unsqueeze(1)
    loss = ProxyEnd2(divergence="proxy").distillation(beta.log().view(1, 1, 3), teachers)
    assert float(loss) == pytest.approx(0, abs=1e-9)
