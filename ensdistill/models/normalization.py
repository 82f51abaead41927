"""Normalization as the first layer of a network, so that networks and perturbations use images in [0,1]."""

from torch import Tensor, nn


class Normalize(nn.Module):
    """Computes (x - mean) / std per channel: (B,C,H,W) -> (B,C,H,W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
