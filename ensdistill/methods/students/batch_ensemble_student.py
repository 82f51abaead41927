"""Network of the student `batch_ensemble`: layers with K pairs of factors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensdistill.errors import ConfigError
from ensdistill.methods.members import CombinedClassifier
from ensdistill.methods.students.base import Student
from ensdistill.methods.students.layers import can_be_rank_one, replace_layers, warn_unconverted_layers

if TYPE_CHECKING:
    from ensdistill.methods.students.batch_ensemble import BatchEnsemble

_CANNOT = "student.kind: batch_ensemble cannot convert this network ({}); use another model or student"


class ActiveMembers:
    """The subnetworks that are currently active; all layers of one student share this object.

    An arbitrary network cannot pass an additional argument to its layers. Therefore, `forward` stores the selected
    subnetworks here while it runs, and must not be called again before it returns.
    """

    members: Sequence[int] | None = None  # None: all members, in order
    batch: int | None = None  # k*B, the number of images for all selected members; None: unknown


class RankOne(nn.Module):
    """A convolutional or linear layer with K pairs of factors: (k*B, inputs, ...) -> (k*B, outputs, ...).

    `r` and `s` are stored as differences from one, so that ordinary weight decay pulls the factors towards one.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, settings: BatchEnsemble, selection: ActiveMembers) -> None:
        super().__init__()
        self.layer = layer
        self.lr_scale = getattr(layer, "lr_scale", 1.0)  # see `ensdistill.methods.parameter_groups`
        self.selection = selection
        inputs, outputs = _channels(layer)
        self.r, self.s = (_start(layer.weight, settings, channels) for channels in (inputs, outputs))
        self.bias = None
        if settings.bias == "per_member" and layer.bias is not None:
            values = layer.bias.detach().repeat(settings.subnetworks, 1)
            self.bias = nn.Parameter(values, requires_grad=layer.bias.requires_grad)
            layer.bias = None

    def forward(self, x: Tensor) -> Tensor:
        # The factors scale the weights; scaling the activations, which are larger, would require four more passes.
        batch, r, s = self.selection.batch, 1 + self._chosen(self.r), 1 + self._chosen(self.s)
        if batch not in (None, x.shape[0]):  # an export would treat len(x) as a constant
            raise ConfigError(_CANNOT.format(f"one of its layers receives a batch of {len(x)} instead of {batch}"))
        weights = self.layer.weight * _outer(self.layer, s, r)
        each = x.reshape(len(s), -1, *x.shape[1:])  # not chunk(), whose chunk size would also become a constant
        shares = zip(each.unbind(), weights, self._biases(s), strict=True)
        outputs = [self._plain(*share) for share in shares]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _chosen(self, vectors: Tensor) -> Tensor:
        """Returns the rows of `vectors` that belong to the selected subnetworks."""
        members = self.selection.members
        return vectors if members is None else vectors[list(members)]

    def _biases(self, s: Tensor) -> Iterable[Tensor | None]:
        """Returns the bias of each selected subnetwork; None for a layer without bias."""
        if self.bias is not None:
            return self._chosen(self.bias)
        return [None] * len(s) if self.layer.bias is None else s * self.layer.bias

    def _plain(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Returns the outputs of the layer for one subnetwork."""
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        y: Tensor = self.layer._conv_forward(x, weight, bias)
        return y

    def merged(self, merge: str) -> nn.Conv2d | nn.Linear:
        """Returns one plain layer. A shared bias is multiplied by the mean of s, because y = s(Wx + b)."""
        layer = deepcopy(self.layer)
        r, s = 1 + self.r.detach(), 1 + self.s.detach()
        with torch.no_grad():
            products = merge == "mean_of_products"
            layer.weight.mul_(_outer(layer, s, r).mean(0) if products else _outer(layer, s.mean(0), r.mean(0)))
            if self.bias is not None:
                layer.bias = nn.Parameter(self.bias.detach().mean(0), requires_grad=self.bias.requires_grad)
            elif layer.bias is not None:
                layer.bias.mul_(s.mean(0))
        return layer


class BatchEnsembleStudent(Student):
    """K subnetworks that run as one batch of K*B images, through one shared set of normalization layers."""

    def __init__(self, network: nn.Module, settings: BatchEnsemble) -> None:
        super().__init__()
        self.settings = settings
        self.selection = ActiveMembers()
        warn_unconverted_layers(network)
        self.network = replace_layers(network, can_be_rank_one, lambda layer: RankOne(layer, settings, self.selection))

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        k = len(self) if members is None else len(members)
        self.selection.members, self.selection.batch = members, k * x.shape[0]
        try:
            logits: Tensor = self.network(x.repeat(k, *[1] * (x.dim() - 1)))
        except AttributeError as error:  # the network reads the weight of a layer instead of calling the layer
            if "RankOne" not in str(error):
                raise
            raise ConfigError(_CANNOT.format(error)) from error
        finally:
            self.selection.members = self.selection.batch = None
        return logits.view(k, x.shape[0], -1).to(x.dtype)

    def __len__(self) -> int:
        return self.settings.subnetworks

    def merged(self) -> nn.Module:
        if self.settings.merge == "mean_of_probabilities":
            return CombinedClassifier(deepcopy(self), self.settings.merge)
        return replace_layers(
            deepcopy(self.network), lambda m: isinstance(m, RankOne), lambda layer: layer.merged(self.settings.merge)
        )

    def merge_due(self, progress: float) -> bool:
        return progress >= self.settings.merge_after

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Returns two groups: the shared parameters and the factors."""
        factors = [p for layer in self.modules() if isinstance(layer, RankOne) for p in (layer.r, layer.s)]
        known = {id(p) for p in factors}
        shared = [p for p in self.parameters() if id(p) not in known]
        times = len(self) if self.settings.factor_gradient == "sum" else 1
        decay = weight_decay if self.settings.factor_decay == "to_one" else 0.0
        return [
            {"params": shared, "weight_decay": weight_decay, "lr_scale": 1.0},
            {"params": factors, "weight_decay": decay, "lr_scale": self.settings.factor_lr, "grad_scale": times},
        ]


def _start(like: Tensor, settings: BatchEnsemble, channels: int) -> nn.Parameter:
    """Returns the initial factors minus one, (K, channels)."""
    shape = (settings.subnetworks, channels)
    if settings.factor_init == "ones":
        distance = torch.zeros(shape)
    elif settings.factor_init == "normal":
        distance = settings.factor_std * torch.randn(shape)
    else:
        distance = -2.0 * torch.randint(2, shape)
    return nn.Parameter(distance.to(like))


def _channels(layer: nn.Conv2d | nn.Linear) -> tuple[int, int]:
    """Returns the number of inputs and outputs of a layer."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    return layer.in_features, layer.out_features


def _outer(layer: nn.Conv2d | nn.Linear, s: Tensor, r: Tensor) -> Tensor:
    """Returns s r^T in the layout of the layer's weight, for s (..., outputs) and r (..., inputs).

    In a grouped convolution, an output depends only on the inputs in the same group.
    """
    if isinstance(layer, nn.Linear):
        return s[..., :, None] * r[..., None, :]
    inputs = r.view(*r.shape[:-1], layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, -2)
    return (s[..., None] * inputs)[..., None, None]
