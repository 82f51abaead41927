"""Networks that are trained no more, in the form that runs fastest."""

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import cast

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def inference_form(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode, each BatchNorm folded into the convolution right before it: the same up to rounding.

    A network whose course depends on its numbers keeps its BatchNorms.
    """
    network = deepcopy(network).eval()
    for convolution, norm in list(_foldable(network)):
        layers = (network.get_submodule(name) for name in (convolution, norm))
        network.set_submodule(convolution, fuse_conv_bn_eval(*cast(tuple[nn.Conv2d, nn.BatchNorm2d], layers)))
        network.set_submodule(norm, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _foldable(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Convolutions that run once and feed one BatchNorm alone, by name, each with that BatchNorm."""
    try:
        nodes = _Tracer().trace(deepcopy(network)).nodes  # a call may leave something behind
    except Exception:  # of any kind: networks may do what they like, and not all of it can be traced
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
    """Looks into every module that has modules in it, and into no other."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return next(module.children(), None) is None
