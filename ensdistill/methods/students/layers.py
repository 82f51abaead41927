"""Finding and replacing layers inside any network."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_SHARED = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)  # meant to be shared by all subnetworks


def can_be_rank_one(module: nn.Module) -> bool:
    """Whether a rank-one ensemble can be made of this layer: a convolution or linear layer that is applied as such."""
    return type(module).forward in (nn.Conv2d.forward, nn.Linear.forward)


def replace_layers(
    network: nn.Module, chosen: Callable[[nn.Module], bool], new: Callable[[Any], nn.Module]
) -> nn.Module:
    """Replaces every chosen layer in place by `new(layer)`; returns the network (or its replacement).

    A layer that stands in several places stays one layer. Attention is left whole: it reads its layers' weights itself.
    """
    replaced: dict[int, nn.Module] = {}

    def walk(module: nn.Module) -> nn.Module:
        if id(module) not in replaced:
            replaced[id(module)] = module
            if chosen(module):
                replaced[id(module)] = new(module)
            elif not isinstance(module, nn.MultiheadAttention):
                for name, child in list(module._modules.items()):
                    if child is not None:
                        setattr(module, name, walk(child))
        return replaced[id(module)]

    return walk(network)


def warn_unconverted_layers(network: nn.Module) -> None:
    """A warning that names the layers whose weights all subnetworks will share as they are."""
    names = list(_unturned(network))
    if names:
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        warnings.warn(f"batch_ensemble: layers shared as they are by all subnetworks: {shown}", stacklevel=3)


def _unturned(network: nn.Module, prefix: str = "") -> Iterator[str]:
    for name, child in network.named_children():
        if isinstance(child, nn.MultiheadAttention):
            yield f"{prefix}{name} ({type(child).__name__})"
        elif next(child.children(), None) is not None:
            yield from _unturned(child, f"{prefix}{name}.")
        elif (
            next(child.parameters(), None) is not None and not can_be_rank_one(child) and not isinstance(child, _SHARED)
        ):
            yield f"{prefix}{name} ({type(child).__name__})"
