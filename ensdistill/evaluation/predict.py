"""What a network says of the images of a split."""

import torch
from torch import Tensor, nn

from ensdistill.data import Split
from ensdistill.evaluation.metrics import all_metrics, log_mean_probability
from ensdistill.runtime.modes import evaluating

BATCH = 1000


def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    """Accuracy, NLL, Brier and ECE on a split of a plain network, or of the mean probability of several members."""
    return all_metrics(predict(network, split), split.labels)


def predict(network: nn.Module, split: Split) -> Tensor:
    """Log-probabilities (N,classes), float64, in evaluation mode; several members speak through their mean."""
    parts = []
    with evaluating(network), torch.no_grad():
        for start in range(0, len(split), BATCH):
            logits = network(split[slice(start, start + BATCH)][0])
            parts.append(log_mean_probability(logits if logits.dim() == 3 else logits.unsqueeze(0)))
    return torch.cat(parts)
