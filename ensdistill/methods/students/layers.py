"""Finds and replaces layers in any network."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_SHARED = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)  # intentionally shared by all subnetworks


def can_be_rank_one(module: nn.Module) -> bool:
    """Returns True for a convolution or linear layer with torch's `forward`, which can become a rank-one ensemble."""
    return type(module).forward in (nn.Conv2d.forward, nn.Linear.forward)


def replace_layers(
    network: nn.Module, chosen: Callable[[nn.Module], bool], new: Callable[[Any], nn.Module]
) -> nn.Module:
    """Replaces each layer for which `chosen(layer)` is true by `new(layer)`, in place.

    A layer that occurs in several places is replaced by the same new layer everywhere. Attention modules are not
    changed, because they read the weights of their layers directly.

    Args:
        network: Any network.
        chosen: Function that returns whether to replace a module.
        new: Function that returns the replacement for a module.

    Returns:
        The network, or its replacement if the network itself is replaced.
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
    """Warns if there are layers that all subnetworks share without factors."""
    names = list(_unconverted(network))
    if names:
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        warnings.warn(f"batch_ensemble: layers that all subnetworks share without factors: {shown}", stacklevel=3)


def _unconverted(network: nn.Module, prefix: str = "") -> Iterator[str]:
    """Yields the name and type of each layer that has weights but cannot be converted."""
    for name, child in network.named_children():
        if isinstance(child, nn.MultiheadAttention):
            yield f"{prefix}{name} ({type(child).__name__})"
        elif next(child.children(), None) is not None:
            yield from _unconverted(child, f"{prefix}{name}.")
        elif (
            next(child.parameters(), None) is not None and not can_be_rank_one(child) and not isinstance(child, _SHARED)
        ):
            yield f"{prefix}{name} ({type(child).__name__})"
