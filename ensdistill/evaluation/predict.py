"""Predictions of a network on a split."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ensdistill.data import Split
from ensdistill.evaluation.metrics import all_metrics, log_mean_probability
from ensdistill.runtime.modes import evaluating

BATCH = 1000  # maximum number of images in a batch
VALUES = 1 << 24  # maximum number of values in a batch, which limits memory (111 images of 3x224x224)


def batches(split: Split) -> Iterator[slice]:
    """Yields the slices of a split that are evaluated as batches; the slices are the same on all devices."""
    size = min(BATCH, max(1, VALUES // max(1, math.prod(split.images.shape[1:]))))
    return (slice(start, start + size) for start in range(0, len(split), size))


def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    """Returns the metrics of a network on a split, computed by `all_metrics`.

    Args:
        network: Images (B,C,H,W) in [0,1] -> logits (B,classes), or logits (members,B,classes) of several members;
            member probabilities are averaged.
        split: Images and labels.
    """
    return all_metrics(predict(network, split), split.labels)


def predict(network: nn.Module, split: Split) -> Tensor:
    """Returns the log-probabilities of a network in evaluation mode.

    Args:
        network: Images (B,C,H,W) in [0,1] -> logits (B,classes), or logits (members,B,classes) of several members;
            member probabilities are averaged.
        split: The images.

    Returns:
        Log-probabilities (N,classes), float64.
    """
    parts = []
    with evaluating(network), torch.no_grad():
        for batch in batches(split):
            logits = network(split[batch][0])
            parts.append(log_mean_probability(logits if logits.dim() == 3 else logits.unsqueeze(0)))
    return torch.cat(parts)
