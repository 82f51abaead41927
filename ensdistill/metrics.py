"""How good a classifier's probabilities are. All in float64, all from log-probabilities (B,classes) and labels (B,)."""

import math

import torch
from torch import Tensor

ECE_BINS = 15


def log_mean_probability(logits: Tensor) -> Tensor:
    """log of the members' mean probability: logits (members,B,c) -> (B,c)."""
    return logits.double().log_softmax(-1).logsumexp(0) - math.log(len(logits))


def accuracy(log_p: Tensor, labels: Tensor) -> float:
    """Share of images whose likeliest class is the label, in [0, 1]."""
    return float((log_p.argmax(-1) == labels).double().mean())


def nll(log_p: Tensor, labels: Tensor) -> float:
    """Negative log-likelihood, mean -log p(label), in nats."""
    return float(-log_p.gather(-1, labels[:, None]).double().mean())


def brier(log_p: Tensor, labels: Tensor) -> float:
    """Brier score, mean over images of sum_k (p_k - 1[y = k])^2, in [0, 2]; not divided by the number of classes."""
    p = log_p.double().exp()
    return float((p - torch.nn.functional.one_hot(labels, p.shape[-1])).square().sum(-1).mean())


def ece(log_p: Tensor, labels: Tensor) -> float:
    """Expected calibration error in [0, 1]: 15 equal bins (lo, hi] on the largest probability. Guo et al. 2017."""
    confidence, predicted = log_p.double().exp().max(-1)
    edges = torch.linspace(0, 1, ECE_BINS + 1, dtype=torch.float64, device=log_p.device)
    bins = torch.bucketize(confidence.clamp(max=1), edges[1:-1])
    gap = (predicted == labels).double() - confidence
    return float(gap.new_zeros(ECE_BINS).index_add_(0, bins, gap).abs().sum() / len(labels))


def all_metrics(log_p: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, NLL (nats), Brier and ECE of log-probabilities (B,c) against labels (B,).

    On the CPU, where sums are always taken in the same order.
    """
    log_p, labels = log_p.cpu(), labels.cpu()
    return {metric.__name__: metric(log_p, labels) for metric in (accuracy, nll, brier, ece)}
