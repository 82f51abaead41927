"""Classification metrics, computed in float64 from log-probabilities (B,classes) and labels (B,).

`BUILT_IN` lists the metrics. This list determines which metrics are evaluated, reported, described in the help, and
available as objectives; it also determines the direction of each objective.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

ECE_BINS = 15
TOP = 5  # number of most likely classes in `top5_accuracy`


def log_mean_probability(logits: Tensor) -> Tensor:
    """Returns the logarithm of the members' mean probability: logits (members,B,c) -> (B,c), float64."""
    return logits.double().log_softmax(-1).logsumexp(0) - math.log(len(logits))


def accuracy(log_p: Tensor, labels: Tensor) -> float:
    """Returns the fraction of images whose most likely class is the label, in [0, 1]."""
    return float((log_p.argmax(-1) == labels).double().mean())


def nll(log_p: Tensor, labels: Tensor) -> float:
    """Returns the negative log-likelihood: the mean of -log p(label), in nats."""
    return float(-log_p.gather(-1, labels[:, None]).double().mean())


def brier(log_p: Tensor, labels: Tensor) -> float:
    """Returns the Brier score: the mean over images of sum_k (p_k - 1[y = k])^2, in [0, 2].

    The score is not divided by the number of classes.
    """
    p = log_p.double().exp()
    return float((p - torch.nn.functional.one_hot(labels, p.shape[-1])).square().sum(-1).mean())


def ece(log_p: Tensor, labels: Tensor) -> float:
    """Returns the expected calibration error, in [0, 1], over 15 equal-width bins (lo, hi] of the largest probability.

    References:
        Guo et al. 2017.
    """
    confidence, right, _ = _binned(log_p, labels)
    return float((right - confidence).abs().sum() / len(labels))


def reliability(log_p: Tensor, labels: Tensor) -> list[tuple[float, float, int]]:
    """Returns the mean confidence, accuracy and number of images for each non-empty bin of `ece`.

    References:
        Guo et al. 2017, figure 4.
    """
    confidence, right, images = (part.cpu() for part in _binned(log_p, labels))
    return [(float(c / n), float(r / n), int(n)) for c, r, n in zip(confidence, right, images, strict=True) if n]


def _binned(log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns three sums per bin, (15,) float64 each: confidence, correct predictions, and number of images."""
    confidence, predicted = log_p.double().exp().max(-1)
    edges = torch.linspace(0, 1, ECE_BINS + 1, dtype=torch.float64, device=log_p.device)
    bins = torch.bucketize(confidence.clamp(max=1), edges[1:-1])
    parts = torch.stack([confidence, (predicted == labels).double(), torch.ones_like(confidence)])
    sums = parts.new_zeros(3, ECE_BINS).index_add_(1, bins, parts)
    return sums[0], sums[1], sums[2]


def top5_accuracy(log_p: Tensor, labels: Tensor) -> float:
    """Returns the fraction of images whose label is among the five most likely classes, in [0, 1].

    Among equal probabilities, the first class ranks highest, as in `accuracy`. With five or fewer classes, the metric
    is 1 for every network, so `all_metrics` omits it.
    """
    own = log_p.gather(-1, labels[:, None])
    earlier = torch.arange(log_p.shape[-1], device=log_p.device) < labels[:, None]
    likelier = ~(log_p <= own) | ((log_p == own) & earlier)  # negated, so that NaN is never correct
    return float((likelier.sum(-1) < TOP).double().mean())


def macro_f1(log_p: Tensor, labels: Tensor) -> float:
    """Returns the mean over classes of F1 = 2 correct / (labels + predictions), in [0, 1].

    As in scikit-learn, the mean is taken over the classes that occur in labels or predictions; a class that occurs only
    in predictions has F1 = 0.
    """
    right, labeled, predicted = _counts(log_p, labels)
    occurs = labeled + predicted > 0
    return float((2 * right / (labeled + predicted))[occurs].mean())


def balanced_accuracy(log_p: Tensor, labels: Tensor) -> float:
    """Returns the mean of the per-class accuracies, in [0, 1].

    Classes without images in the split are ignored, as in scikit-learn.
    """
    return float(_recalls(log_p, labels).mean())


def worst_class_accuracy(log_p: Tensor, labels: Tensor) -> float:
    """Returns the lowest per-class accuracy, in [0, 1].

    Classes without images in the split are ignored, as in `balanced_accuracy`.
    """
    return float(_recalls(log_p, labels).min())


def _recalls(log_p: Tensor, labels: Tensor) -> Tensor:
    """Returns the accuracy of each class that has images, float64."""
    right, labeled, _ = _counts(log_p, labels)
    return (right / labeled)[labeled > 0]


def _counts(log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns three counts per class, (c,) float64 each: correct predictions, labels, and predictions."""
    predicted, classes = log_p.argmax(-1), log_p.shape[-1]
    parts = (labels[predicted == labels], labels, predicted)
    right, labeled, guessed = (torch.bincount(part, minlength=classes).double() for part in parts)
    return right, labeled, guessed


@dataclass(frozen=True)
class Metric:
    """A metric of one network.

    Attributes:
        name: Name in files and settings; `val/<name>` for validation images.
        label: Name to use in sentences.
        higher_is_better: Whether the metric is maximized as an objective.
        compute: Log-probabilities (B,c) and labels (B,) -> value; None if the metric depends on other inputs.
        min_classes: Minimum number of classes; with fewer classes, the metric is meaningless and is omitted.
    """

    name: str
    label: str
    higher_is_better: bool
    compute: Callable[[Tensor, Tensor], float] | None = None
    min_classes: int = 2


_TABLE = (
    Metric("accuracy", "accuracy", True, accuracy),
    Metric("nll", "NLL", False, nll),
    Metric("brier", "Brier score", False, brier),
    Metric("ece", "ECE", False, ece),
    Metric("top5_accuracy", "top-5 accuracy", True, top5_accuracy, TOP + 1),
    Metric("macro_f1", "macro-F1", True, macro_f1),
    Metric("balanced_accuracy", "balanced accuracy", True, balanced_accuracy),
    Metric("worst_class_accuracy", "accuracy of the worst class", True, worst_class_accuracy),
    Metric("cnll", "calibrated NLL", False),  # at a temperature fitted on validation images
    Metric("dee", "deep-ensemble equivalent", True),  # relative to the teachers
)
BUILT_IN = {metric.name: metric for metric in _TABLE}


def all_metrics(log_p: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns every metric in `BUILT_IN` that depends only on predictions and labels.

    All metrics are computed on the CPU, where the order of summation is fixed.

    Args:
        log_p: Log-probabilities (B,c).
        labels: Class indices (B,).
    """
    log_p, labels = log_p.cpu(), labels.cpu()
    return {
        metric.name: metric.compute(log_p, labels)
        for metric in BUILT_IN.values()
        if metric.compute and log_p.shape[-1] >= metric.min_classes
    }


def at_chance(log_p: Tensor, labels: Tensor) -> bool:
    """Returns whether the accuracy is not significantly better than that of random guessing.

    The guesses have the same class frequencies as the predictions, and are correct with probability
    p = sum_k share_k(predictions) share_k(labels). Predictions that do not depend on the image, such as a constant
    class, are correct with the same probability. The test is one-sided at the 1 % level and uses the normal
    approximation.

    Args:
        log_p: Log-probabilities (N,c).
        labels: Class indices (N,).
    """
    predicted, labels = log_p.cpu().argmax(-1), labels.cpu()
    shares = [torch.bincount(part, minlength=log_p.shape[-1]).double() / len(labels) for part in (predicted, labels)]
    by_guessing = float((shares[0] * shares[1]).sum())
    spread = math.sqrt(by_guessing * (1 - by_guessing) / len(labels))
    return float((predicted == labels).double().mean()) <= by_guessing + 2.33 * spread


def entropy(log_p: Tensor) -> Tensor:
    """Returns the entropy H(p) = -sum_k p_k log p_k for each image, in nats, from 0 to log c.

    Args:
        log_p: Log-probabilities (...,c).

    Returns:
        Entropies (...).
    """
    terms: Tensor = torch.special.entr(log_p.double().exp())  # 0 where p = 0
    return terms.sum(-1)


def ood_auroc(log_p_in: Tensor, log_p_out: Tensor) -> float:
    """Returns the area under the ROC curve for detecting out-of-distribution images by prediction entropy.

    The area is P(H(out) > H(in)) + P(H(out) = H(in)) / 2, where H(in) and H(out) are the entropies of the predictions
    for two random images, one from each set.

    Args:
        log_p_in: Log-probabilities (N,c) of in-distribution images.
        log_p_out: Log-probabilities (N',c) of out-of-distribution images, at the same temperature.

    Returns:
        A number in [0, 1]; 1/2 is chance level.

    References:
        Lakshminarayanan et al. 2017.
    """
    scores = torch.cat([entropy(log_p_in.cpu()), entropy(log_p_out.cpu())])
    if scores.isnan().any():
        return math.nan  # NaN, as in all other metrics; scikit-learn would raise an error
    from sklearn.metrics import roc_auc_score  # imported here, because the import is slow and rarely needed

    foreign = torch.arange(len(scores)) >= len(log_p_in)
    return float(roc_auc_score(foreign.numpy(), scores.numpy()))
