"""Network of the student `branches`: one stem, followed by K copies of the remaining layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ensdistill.errors import ConfigError
from ensdistill.methods.members import CombinedClassifier
from ensdistill.methods.students.base import Student

if TYPE_CHECKING:
    from ensdistill.methods.students.branches import Branches


class ActiveBranches:
    """The branches that are currently active; all branched layers of one student share this object.

    An arbitrary network cannot pass an additional argument to its layers. Therefore, `forward` stores the selected
    branches here while it runs, and must not be called again before it returns.
    """

    members: Sequence[int] | None = None  # None: all branches, in order
    split = False  # whether the batch already contains one part for each selected branch

    def refuse_stem(self, part: nn.Module, inputs: object) -> None:
        """Raises an error if a branch has already run; called before every part of the stem.

        Raises:
            ConfigError: The network does not run its parts in the order in which it registers them.
        """
        if self.split:
            raise ConfigError(
                "student.kind: branches requires a network that runs its parts in the order in which it registers "
                "them, but this network does not; reorder the parts, or use another student"
            )


class Branched(nn.Module):
    """K copies of one part of a network; the k active copies map one batch (B, ...), or k batches, to (k*B, ...)."""

    def __init__(self, part: nn.Module, branches: int, now: ActiveBranches) -> None:
        super().__init__()
        others = [_shuffled(part) for _ in range(branches - 1)]
        self.parts = nn.ModuleList([part, *others])
        self.now = now

    def forward(self, x: Tensor) -> Tensor:
        chosen = range(len(self.parts)) if self.now.members is None else self.now.members
        # one copy per branch, because a part can start with an in-place operation
        shares = x.reshape(len(chosen), -1, *x.shape[1:]) if self.now.split else [x, *(x.clone() for _ in chosen[1:])]
        self.now.split = True
        return torch.cat([self.parts[k](share) for k, share in zip(chosen, shares, strict=True)])


class BranchesStudent(Student):
    """A student with K branches that share one stem."""

    def __init__(self, network: nn.Module, settings: Branches) -> None:
        super().__init__()
        self.settings = settings
        self.now = ActiveBranches()
        units = list(_units(network))
        cut = _cut(units, settings.branch_at)
        for parent, name in units[:cut]:
            stem = parent.get_submodule(name)
            if next(stem.parameters(), None) is not None:
                stem.register_forward_pre_hook(self.now.refuse_stem)
        for parent, name in units[cut:]:
            part = parent._modules[name]
            if part is not None and next(part.parameters(), None) is not None:
                setattr(parent, name, Branched(part, settings.subnetworks, self.now))
        self.network = network

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        k = len(self) if members is None else len(members)
        self.now.members, self.now.split = members, False
        try:
            logits: Tensor = self.network(x)
        finally:
            self.now.members, self.now.split = None, False
        return logits.view(k, x.shape[0], -1).to(x.dtype)

    def __len__(self) -> int:
        return self.settings.subnetworks

    def merged(self) -> nn.Module:
        return CombinedClassifier(deepcopy(self), self.settings.merge)


Unit = tuple[nn.Module, str]  # a part of a network as (parent, name)


def _units(network: nn.Module, outermost: bool = True) -> Iterator[Unit]:
    """Yields the parts of a network in the order of registration, which is assumed to be the order of execution.

    For an `nn.Sequential`, an `nn.ModuleList` and the network that follows `Normalize`, the children are yielded
    instead.
    """
    weighty = [child for child in network.children() if next(child.parameters(), None) is not None]
    for name, child in network.named_children():
        the_network = outermost and weighty == [child] and next(child.children(), None) is not None
        if the_network or isinstance(child, nn.ModuleList) or type(child).forward is nn.Sequential.forward:
            yield from _units(child, False)
        else:
            yield network, name


def _shuffled(part: nn.Module) -> nn.Module:
    """Returns a copy of the part with the values of each weight tensor shuffled; frozen tensors are not changed."""
    copy = deepcopy(part)
    with torch.no_grad():
        for p in filter(lambda p: p.requires_grad, copy.parameters()):
            p.copy_(p.flatten()[torch.randperm(p.numel()).to(p.device)].view_as(p))
    return copy


def _cut(units: Sequence[Unit], branch_at: str) -> int:
    """Returns the index of the first unit that belongs to the branches."""
    parts = [parent.get_submodule(name) for parent, name in units]
    with_weights = [n for n, part in enumerate(parts) if next(part.parameters(), None) is not None]
    if branch_at == "classifier":
        return with_weights[-1]
    last = max((n for n, part in enumerate(parts) if _lowers_resolution(part)), default=0)
    start = min((n for n in with_weights if n >= last), default=0)
    if start <= with_weights[0]:
        raise ConfigError(
            "student.branch_at: last_stage requires a network that lowers the resolution after its first layer; "
            "use classifier, or another model"
        )
    return start


def _lowers_resolution(part: nn.Module) -> bool:
    """Returns whether the part contains a module with a stride above 1; global pooling has no stride."""
    strides = (getattr(module, "stride", 1) for module in part.modules())
    return any(max(stride) > 1 if isinstance(stride, tuple | list) else (stride or 1) > 1 for stride in strides)
