"""K subnetworks in one network: shared weights W, and for each subnetwork two vectors that scale them.

Subnetwork m of a linear or convolutional layer computes, for input x,

    y_m = s_m * (W (r_m * x) + b)

with r (K, inputs) and s (K, outputs) along the channels. Naming trap: here, as in the code of Nam et al. 2022, r is on
the input side and s on the output side; Wen et al. 2020 (BatchEnsemble) name them the other way round.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ensdistill.settings import Settings, setting
from ensdistill.students.base import Student


class BatchEnsemble(Settings):
    """Turns the convolutional and linear layers of any network into rank-one ensembles; merged into one at the end.

    The factors start at exactly one, so that all subnetworks begin equal and only their different teachers part them.
    They decay towards one, and each sees the full gradient of its own loss (K times its share of the mean loss).
    Nam et al. 2022 (LatentBE), section 3, and their official code.
    """

    kind: Literal["batch_ensemble"] = "batch_ensemble"
    subnetworks: int = setting(4, "How many subnetworks K share the weights.", ge=1, le=64)
    factor_gradient: Literal["own", "mean"] = setting(
        "own", "Gradient of a factor: of its own subnetwork's loss (K times), or its share of the mean loss."
    )
    merge: Literal["product_of_means", "mean_of_products"] = setting(
        "product_of_means",
        "How subnetworks become one: mean s times W times mean r (published), or mean over m of s W r.",
    )

    def __call__(self, network: nn.Module) -> "BatchEnsembleStudent":
        """network: images (B,C,H,W) -> logits (B,classes); its layers are taken over, so do not use it afterwards."""
        return BatchEnsembleStudent(network, self)


class Selection:
    """Which subnetworks the layers of one student run at the moment; one object, shared by all its layers."""

    members: Sequence[int] | None = None  # None: all of them, in order


class RankOne(nn.Module):
    """A convolutional or linear layer with K pairs of factors: (k*B, inputs, ...) -> (k*B, outputs, ...).

    `r` and `s` are stored as their distance from one, so that ordinary weight decay pulls the factors to one.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, subnetworks: int, selection: Selection) -> None:
        super().__init__()
        self.layer = layer
        self.selection = selection
        self.channel_axis = 1 if isinstance(layer, nn.Conv2d) else -1
        inputs, outputs = _channels(layer)
        self.r = nn.Parameter(layer.weight.new_zeros(subnetworks, inputs))
        self.s = nn.Parameter(layer.weight.new_zeros(subnetworks, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self._scaled(self.layer(self._scaled(x, self.r)), self.s)

    def _scaled(self, x: Tensor, distance: Tensor) -> Tensor:
        """Multiplies the channels of each chosen subnetwork's share of the batch by that subnetwork's factors."""
        members = self.selection.members
        factors = 1 + (distance if members is None else distance[list(members)])
        k, channels = factors.shape
        shape = [k, 1] + [1] * (x.dim() - 1)
        shape[2 if self.channel_axis == 1 else -1] = channels
        return (x.view(k, -1, *x.shape[1:]) * factors.view(shape)).flatten(0, 1)

    def merged(self, merge: str) -> nn.Conv2d | nn.Linear:
        """One plain layer; the shared bias is scaled by the mean of s, which is the exact fold of y = s(Wx + b)."""
        layer = deepcopy(self.layer)
        r, s = 1 + self.r.detach(), 1 + self.s.detach()
        with torch.no_grad():
            scale = _grouped(layer, s.mean(0), r.mean(0))
            if merge == "mean_of_products":
                scale = torch.stack([_grouped(layer, s_m, r_m) for s_m, r_m in zip(s, r, strict=True)]).mean(0)
            layer.weight.mul_(scale)
            if layer.bias is not None:
                layer.bias.mul_(s.mean(0))
        return layer


class BatchEnsembleStudent(Student):
    """K subnetworks that run as one batch of K*B images, through one shared set of BatchNorm layers."""

    def __init__(self, network: nn.Module, settings: BatchEnsemble) -> None:
        super().__init__()
        self.settings = settings
        self.selection = Selection()
        self.network = _replace(
            network, (nn.Conv2d, nn.Linear), lambda layer: RankOne(layer, settings.subnetworks, self.selection)
        )

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        k = len(self) if members is None else len(members)
        self.selection.members = members
        try:
            logits: Tensor = self.network(x.repeat(k, *[1] * (x.dim() - 1)))
        finally:
            self.selection.members = None
        return logits.view(k, len(x), -1)

    def __len__(self) -> int:
        return self.settings.subnetworks

    def merged(self) -> nn.Module:
        return _replace(deepcopy(self.network), (RankOne,), lambda layer: layer.merged(self.settings.merge))

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Shared parameters as usual, factors apart.

        In SGD, with or without momentum, a gradient times K with decay d is a rate times K with decay d / K.
        """
        factors = [p for layer in self.modules() if isinstance(layer, RankOne) for p in (layer.r, layer.s)]
        known = {id(p) for p in factors}
        shared = [p for p in self.parameters() if id(p) not in known]
        times = len(self) if self.settings.factor_gradient == "own" else 1
        return [
            {"params": shared, "weight_decay": weight_decay, "lr_scale": 1.0},
            {"params": factors, "weight_decay": weight_decay / times, "lr_scale": float(times)},
        ]


def _channels(layer: nn.Conv2d | nn.Linear) -> tuple[int, int]:
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    return layer.in_features, layer.out_features


def _grouped(layer: nn.Conv2d | nn.Linear, s: Tensor, r: Tensor) -> Tensor:
    """s r^T laid out like the layer's weight; in a grouped convolution each output sees its own group's inputs."""
    if isinstance(layer, nn.Linear):
        return s[:, None] * r[None, :]
    inputs = r.view(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, 0)
    return (s[:, None] * inputs)[:, :, None, None]


def _replace(network: nn.Module, kinds: tuple[type[nn.Module], ...], new: Any) -> nn.Module:
    """Replaces every layer of the given kinds in place by `new(layer)`; returns the network (or its replacement)."""
    if isinstance(network, kinds):
        replaced: nn.Module = new(network)
        return replaced
    for name, child in network.named_children():
        setattr(network, name, _replace(child, kinds, new))
    return network
