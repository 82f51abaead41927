"""Distribution distillation: the student predicts a Dirichlet distribution that represents the ensemble's diversity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.losses.base import WeightedDistillationLoss
from ensdistill.methods.losses.losses import safe_log
from ensdistill.runtime.lazy import nn, torch
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import Tensor


LARGEST = 30.0  # maximum of |log alpha|; beyond this bound, rounding removes all significant digits of the loss
CLOSEST = 1e-4  # lower bound on the mean divergence of the teachers, in nats


class End2(WeightedDistillationLoss):
    """Likelihood of the teachers' probabilities under the student's Dirichlet distribution, alpha = exp(logits / T).

    L = (1 - alpha) CE(labels, student) - alpha mean_m log Dir(p_m; alpha),   p_m = softmax(t_m / T), smoothed

    The predictive mean alpha / sum alpha equals softmax(logits / T). Here, T is constant; the paper anneals it from 10
    to 1. Unlike in the paper, ln alpha is clipped to [-30, 30], and clipped values have no gradient. Outside that
    range, rounding would remove all significant digits of the loss. Malinin, Mlodozeniec and Gales 2020 (Ensemble
    Distribution Distillation), section 3.
    """

    kind: Literal["end2"] = "end2"
    temperature: float = setting(1.0, "Softmax temperature of teachers and student.", ge=0.05, le=100)
    alpha: float = setting(
        1.0, "Weight alpha of the distillation term; the weight of the label term is 1 - alpha.", ge=0, le=1
    )
    smoothing: float = setting(
        1e-4, "Weight of the uniform distribution that is mixed into each teacher's probabilities.", ge=0, le=1
    )

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        """Returns the distillation term in nats per example, not multiplied by T^2.

        The term is the negative logarithm of a density and can itself be negative.

        Args:
            student: Logits (K,B,c).
            teachers: Logits (M,B,c).
        """
        alpha = _alpha(student / self.temperature)
        p = (teachers.double() / self.temperature).softmax(-1)
        log_p = safe_log((1 - self.smoothing) * p + self.smoothing / p.shape[-1]).mean(0)
        return -(((alpha - 1) * log_p).sum(-1) - _log_normalizer(alpha)).mean()


class ProxyEnd2(WeightedDistillationLoss):
    """Divergence between the student's Dirichlet distribution, alpha = exp(outputs) + 1, and that of the teachers.

    The parameters beta of the teachers' Dirichlet distribution approximate the maximum-likelihood fit:

    p = mean_m p_m,   beta_0 = (c - 1) / (2 mean_m KL(p || p_m)),   beta = p beta_0 + 1

    `proxy`: KL(Dir(beta) || Dir(alpha)); `reverse`, with pi ~ Dir(alpha): E[-sum_k p_k ln pi_k] - H(pi) / (beta_0 + c).
    Ryabinin, Malinin and Gales 2021 (Scaling ensemble distribution distillation), section 3, and their official code.

    Two bounds are not in the paper. The mean divergence of the teachers is clamped to at least 1e-4 nats, so that
    beta_0 is finite (at most 5000 (c - 1)) where the teachers agree. ln alpha is clipped to [-30, 30], and clipped
    values have no gradient; outside that range, rounding would remove all significant digits of the loss. Both
    divergences are computed in float64.
    """

    kind: Literal["proxy_end2"] = "proxy_end2"
    temperature: float = setting(1.0, "Softmax temperature of the teachers.", ge=0.05, le=100)
    alpha: float = setting(
        1.0, "Weight alpha of the distillation term; the weight of the label term is 1 - alpha.", ge=0, le=1
    )
    divergence: Literal["proxy", "reverse"] = setting(
        "reverse", "Direction of the divergence; the paper recommends `reverse`."
    )

    def head(self) -> nn.Module:
        """Returns a module that maps logits z to ln alpha = ln(exp(z) + 1).

        The softmax of ln alpha is the predictive mean alpha / sum alpha.
        """
        return nn.Softplus()

    def distillation(self, student: Tensor, teachers: Tensor) -> Tensor:
        """Returns the distillation term in nats per example, not multiplied by T^2.

        Args:
            student: ln alpha (K,B,c), the output of `head`.
            teachers: Logits (M,B,c).
        """
        alpha = _alpha(student)
        log_p = (teachers.double() / self.temperature).log_softmax(-1)
        p = log_p.exp().mean(0)
        terms = torch.where(p > 0, p * (safe_log(p) - log_p), 0.0)  # 0 where all teachers give probability 0
        divergence = terms.sum(-1).mean(0).clamp(min=CLOSEST)
        precision = ((p.shape[-1] - 1) / (2 * divergence)).unsqueeze(-1)
        if self.divergence == "proxy":
            return _kl(p * precision + 1, alpha).mean()
        log_pi = alpha.digamma() - alpha.sum(-1, keepdim=True).digamma()
        spread = _entropy(alpha) / (precision.squeeze(-1) + p.shape[-1])
        return (-(p * log_pi).sum(-1) - spread).mean()


def _alpha(log_alpha: Tensor) -> Tensor:
    """Returns alpha in float64, with ln alpha clipped to [-30, 30]."""
    return log_alpha.double().clamp(-LARGEST, LARGEST).exp()


def _log_normalizer(alpha: Tensor) -> Tensor:
    """Returns ln B(alpha) = sum_k ln Gamma(alpha_k) - ln Gamma(sum_k alpha_k)."""
    return alpha.lgamma().sum(-1) - alpha.sum(-1).lgamma()


def _kl(beta: Tensor, alpha: Tensor) -> Tensor:
    """Returns KL(Dir(beta) || Dir(alpha)) in nats."""
    log_pi = beta.digamma() - beta.sum(-1, keepdim=True).digamma()
    return _log_normalizer(alpha) - _log_normalizer(beta) + ((beta - alpha) * log_pi).sum(-1)


def _entropy(alpha: Tensor) -> Tensor:
    """Returns the differential entropy of Dir(alpha) in nats."""
    total = alpha.sum(-1)
    spread = (total - alpha.shape[-1]) * total.digamma() - ((alpha - 1) * alpha.digamma()).sum(-1)
    return _log_normalizer(alpha) + spread
