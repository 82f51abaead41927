"""The shape that teachers and students share: several functions behind one call."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Members(nn.Module):
    """Several classifiers: images (B,C,H,W) in [0,1] -> logits (members,B,classes). `len()` says how many."""

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        """Logits of all members in order, or of the chosen ones only: (len(members),B,classes)."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __bool__(self) -> bool:
        return True


class Ensemble(Members):
    """M frozen teachers in evaluation mode. An empty one is allowed: with it, distilling is ordinary training."""

    def __init__(self, networks: Sequence[nn.Module], classes: int, identity: str) -> None:
        """networks: each images (B,C,H,W) -> logits (B,classes). identity: content hash of all that made them."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.classes = classes
        self.identity = identity
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "Ensemble":
        """Teachers stay in evaluation mode, whatever is asked."""
        return self

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        chosen = range(len(self)) if members is None else members
        if not chosen:
            return x.new_zeros(0, len(x), self.classes)
        return torch.stack([self.networks[m](x) for m in chosen])

    def __len__(self) -> int:
        return len(self.networks)
