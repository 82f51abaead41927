"""Students that predict a distribution over class probabilities: one network tells what the ensemble's spread is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import WeightedDistillationLoss
from ensdistill.methods.losses.losses import safe_log
from ensdistill.runtime.lazy import nn, torch
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


LARGEST = 30.0  # of |log alpha|: beyond it no digit of the loss is left
CLOSEST = 1e-4  # nats; teachers that agree better than that count as this far apart


class End2(WeightedDistillationLoss):
    """The teachers' probabilities as draws from the student's Dirichlet distribution, alpha = exp(logits / T).

    L = (1 - alpha) CE(labels, student) - alpha mean_m log Dir(p_m; alpha),   p_m = softmax(t_m / T), smoothed

    The predictive mean alpha / sum alpha is the softmax. T is constant here; the paper anneals it from 10 to 1. Not in
    the paper: ln alpha is cut to [-30, 30], beyond which no digit of the loss is left (its gradient is zero there).
    Malinin, Mlodozeniec and Gales 2020 (Ensemble Distribution Distillation), section 3.
    """

    kind: Literal["end2"] = "end2"
    temperature: float = setting(1.0, "Temperature of teachers and student.", ge=0.05, le=100)
    alpha: float = setting(1.0, "Weight of the distillation term; the label term gets the rest.", ge=0, le=1)
    smoothing: float = setting(1e-4, "Share of the uniform distribution mixed into each teacher.", ge=0, le=1)

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        """Nats per example; a density, so that it may be negative. Not multiplied by T^2."""
        alpha = _alpha(student / self.temperature)
        p = (teachers.double() / self.temperature).softmax(-1)
        log_p = safe_log((1 - self.smoothing) * p + self.smoothing / p.shape[-1]).mean(0)
        return -(((alpha - 1) * log_p).sum(-1) - _log_normalizer(alpha)).mean()


class ProxyEnd2(WeightedDistillationLoss):
    """The student's Dirichlet distribution against the one that fits the teachers best, alpha = exp(outputs) + 1.

    p = mean_m p_m,   beta_0 = (c - 1) / (2 mean_m KL(p || p_m)),   beta = p beta_0 + 1

    `proxy`: KL(Dir(beta) || Dir(alpha)); `reverse`, with pi ~ Dir(alpha): E[-sum_k p_k ln pi_k] - H(pi) / (beta_0 + c).
    Ryabinin, Malinin and Gales 2021 (Scaling ensemble distribution distillation), section 3, and their official code.

    Two bounds are not in the paper: the mean divergence of the teachers counts as at least 1e-4 nats, so that beta_0
    stays finite where they agree (it is at most 5000 (c - 1)); and ln alpha is cut to [-30, 30], beyond which no digit
    of the loss is left (its gradient is zero there). Both are computed in float64.
    """

    kind: Literal["proxy_end2"] = "proxy_end2"
    temperature: float = setting(1.0, "Softmax temperature of the teachers.", ge=0.05, le=100)
    alpha: float = setting(1.0, "Weight of the distillation term; the label term gets the rest.", ge=0, le=1)
    divergence: Literal["proxy", "reverse"] = setting("reverse", "Which divergence (the paper recommends `reverse`).")

    def head(self) -> nn.Module:
        """ln(exp(z) + 1): the softmax of it is the predictive mean alpha / sum alpha."""
        return nn.Softplus()

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        """Nats per example. student: ln alpha, which is what `head` makes of the network's outputs."""
        alpha = _alpha(student)
        log_p = (teachers.double() / self.temperature).log_softmax(-1)
        p = log_p.exp().mean(0)
        terms = torch.where(p > 0, p * (safe_log(p) - log_p), 0.0)  # 0 where all teachers rule a class out
        apart = terms.sum(-1).mean(0).clamp(min=CLOSEST)
        precision = ((p.shape[-1] - 1) / (2 * apart)).unsqueeze(-1)
        if self.divergence == "proxy":
            return _kl(p * precision + 1, alpha).mean()
        log_pi = alpha.digamma() - alpha.sum(-1, keepdim=True).digamma()
        spread = _entropy(alpha) / (precision.squeeze(-1) + p.shape[-1])
        return (-(p * log_pi).sum(-1) - spread).mean()


def _alpha(log_alpha: Tensor) -> Tensor:
    return log_alpha.double().clamp(-LARGEST, LARGEST).exp()


def _log_normalizer(alpha: Tensor) -> Tensor:
    """ln B(alpha) = sum_k ln Gamma(alpha_k) - ln Gamma(sum_k alpha_k)."""
    return alpha.lgamma().sum(-1) - alpha.sum(-1).lgamma()


def _kl(beta: Tensor, alpha: Tensor) -> Tensor:
    """KL(Dir(beta) || Dir(alpha)) in nats."""
    log_pi = beta.digamma() - beta.sum(-1, keepdim=True).digamma()
    return _log_normalizer(alpha) - _log_normalizer(beta) + ((beta - alpha) * log_pi).sum(-1)


def _entropy(alpha: Tensor) -> Tensor:
    """Differential entropy of Dir(alpha) in nats."""
    total = alpha.sum(-1)
    spread = (total - alpha.shape[-1]) * total.digamma() - ((alpha - 1) * alpha.digamma()).sum(-1)
    return _log_normalizer(alpha) + spread
