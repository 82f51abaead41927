"""Construction of networks for the images of a data set."""

from __future__ import annotations

from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.models.network import NetworkPiece
from ensdistill.models.probe import tried
from ensdistill.runtime.lazy import nn, torch
from ensdistill.runtime.randomness import derive_seed, temporary_seed
from ensdistill.settings.calls import misfit
from ensdistill.settings.pieces import is_own


def build(model: NetworkPiece, data: DataSplits, seed: int, head: nn.Module | None = None) -> nn.Sequential:
    """Returns a newly initialized network for a data set, on the device of the data.

    Args:
        model: Architecture.
        data: Images; the network normalizes its input with the mean and standard deviation of the training images.
        seed: Seed for the initial weights; equal seeds give equal weights.
        head: Module to append to the network; see `DistillationLoss.head`.

    Returns:
        A network: images (B,C,H,W) in [0,1] -> logits (B,classes).

    Raises:
        ConfigError: The model is incompatible with the images.
    """
    from ensdistill.models.normalization import Normalize  # imported here, because it imports torch

    device = data.train.images.device
    with temporary_seed(derive_seed(seed, "initial weights"), torch.device("cpu")):
        channels, height, width = data.train.images.shape[1:]
        shape, classes = (channels, height, width), len(data.class_names)
        if is_own(model):
            if rule := misfit(model, shape, classes):
                raise ConfigError(ConfigIssue(("model",), rule, hint="fix this piece"))
            network = tried(lambda: model(shape, classes), shape, classes, f"model: {model.kind}", "fix this piece")
        else:
            network = model(shape, classes)
    mean, std = data.train.channel_statistics()
    parts = [Normalize(mean, std), network.to(device)] + ([head.to(device)] if head else [])
    return nn.Sequential(*parts)
