"""The shape that teachers and students share: several functions behind one call, and how they speak as one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensdistill.errors import ConfigIssue
from ensdistill.models.fusion import inference_form


class MultiClassifier(nn.Module):
    """Several classifiers: images (B,C,H,W) in [0,1] -> logits (members,B,classes). `len()` says how many.

    Logits have the images' type, whatever type the layers are computed in.
    """

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        """Logits of all members in order, or of the chosen ones only: (len(members),B,classes)."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError


class TeacherEnsemble(MultiClassifier):
    """M frozen teachers in evaluation mode. An empty one is allowed: with it, distilling is ordinary training."""

    def __init__(
        self, networks: Sequence[nn.Module], classes: int, identity: str, warnings: Sequence[ConfigIssue] = ()
    ) -> None:
        """Takes networks that are trained no more.

        Args:
            networks: Each maps images (B,C,H,W) to logits (B,classes).
            classes: Number of classes.
            identity: Content hash of all that made the networks.
            warnings: What seems wrong with these teachers.
        """
        super().__init__()
        self.networks = nn.ModuleList(inference_form(n) for n in networks)
        self.classes = classes
        self.identity = identity
        self.warnings = tuple(warnings)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "TeacherEnsemble":
        """Teachers stay in evaluation mode, whatever is asked."""
        return self

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        chosen = range(len(self)) if members is None else members
        if not chosen:
            return x.new_zeros(0, len(x), self.classes)
        return torch.stack([self.networks[m](x) for m in chosen]).to(x.dtype)

    def __len__(self) -> int:
        return len(self.networks)


class CombinedClassifier(nn.Module):
    """Several functions as one network: images (B,C,H,W) -> logits (B,classes), at the cost of all of them."""

    def __init__(self, members: MultiClassifier, how: str) -> None:
        super().__init__()
        self.members = members
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return combine_members(self.members(x), self.how)


def combine_members(logits: Tensor, how: str, temperature: float = 1.0) -> Tensor:
    """Logits at temperature T of several members as one, (members,B,c) -> (B,c).

    how: `mean_of_logits`, `sum_of_logits` or `mean_of_probabilities` (whose logits are log-probabilities).
    """
    if how == "mean_of_probabilities":
        return (logits / temperature).log_softmax(-1).logsumexp(0) - math.log(len(logits))
    return (logits.sum(0) if how == "sum_of_logits" else logits.mean(0)) / temperature
