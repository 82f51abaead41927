"""Networks take images in [0,1] and normalize them themselves, so that perturbations act in pixel space."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ensdistill.data import DataSplits
from ensdistill.runtime.randomness import derive_seed, temporary_seed


class Normalize(nn.Module):
    """(x - mean) / std per channel: (B,C,H,W) -> (B,C,H,W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def build(
    model: Callable[[tuple[int, int, int], int], nn.Module], data: DataSplits, seed: int, head: nn.Module | None = None
) -> nn.Sequential:
    """A freshly initialized network for these data, on their device: images (B,C,H,W) in [0,1] -> logits (B,classes).

    Mean and standard deviation are those of the training images; the same seed gives the same weights. A head is put
    behind the network (see `DistillationLoss.head`).
    """
    device = data.train.images.device
    with temporary_seed(derive_seed(seed, "initial weights"), torch.device("cpu")):
        channels, height, width = data.train.images.shape[1:]
        network = model((channels, height, width), len(data.class_names))
    mean, std = data.train.channel_statistics()
    parts = [Normalize(mean, std), network.to(device)] + ([head.to(device)] if head else [])
    return nn.Sequential(*parts)
