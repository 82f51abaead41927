"""Inference-optimized copies of trained networks."""

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import cast

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def inference_form(network: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode, in which each BatchNorm is folded into the preceding convolution if possible.

    The copy returns the same outputs up to rounding. Networks with data-dependent control flow keep their BatchNorm
    layers.

    Args:
        network: A trained network; it is not changed.
    """
    network = deepcopy(network).eval()
    for convolution, norm in list(_foldable(network)):
        layers = (network.get_submodule(name) for name in (convolution, norm))
        network.set_submodule(convolution, fuse_conv_bn_eval(*cast(tuple[nn.Conv2d, nn.BatchNorm2d], layers)))
        network.set_submodule(norm, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _foldable(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yields pairs of names: a convolution that runs once, and the BatchNorm that is the only user of its output."""
    try:
        nodes = _Tracer().trace(deepcopy(network)).nodes  # a copy, because tracing can change state
    except Exception:  # tracing a user-defined network can raise any exception
        return
    calls = Counter(node.target for node in nodes)
    once = {node: network.get_submodule(node.target) for node in nodes if node.op == "call_module"}
    once = {node: module for node, module in once.items() if calls[node.target] == 1}
    for norm, module in once.items():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and norm.args:
            before = norm.args[0]
            if isinstance(once.get(before), nn.Conv2d) and len(before.users) == 1:
                yield before.target, norm.target


class _Tracer(fx.Tracer):
    """Tracer that enters all modules with submodules and treats all other modules as leaves."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return next(module.children(), None) is None
