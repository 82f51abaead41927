"""The shape that teachers and students share: several functions behind one call, and how they speak as one."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ensdistill.errors import ConfigIssue
from ensdistill.models.fusion import inference_form
from ensdistill.models.in_memory_teacher import InMemoryTeacher, network_content
from ensdistill.models.normalization import Normalize
from ensdistill.models.stored_predictions import StoredTeacher


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
        self,
        networks: Sequence[nn.Module],
        classes: int = 0,
        identity: str = "",
        warnings: Sequence[ConfigIssue] = (),
        *,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        """Takes networks that are trained no more. They are copied.

        Args:
            networks: Each maps images (B,C,H,W) in [0,1] to logits (B,classes).
            classes: Number of classes; needed only for an ensemble without networks.
            identity: Content hash of all that made the networks; by default of the networks themselves.
            warnings: What seems wrong with these teachers.
            mean: Mean per channel that the networks' images were normalized by, in [0,1], if the networks do not
                normalize images themselves.
            std: Standard deviation per channel likewise.

        Raises:
            ValueError: Only one of mean and std is given.
        """
        super().__init__()
        if bool(mean) != bool(std):
            raise ValueError("mean and std: give both, one number for each channel, or neither")
        if mean:
            normalize = Normalize(torch.tensor(mean), torch.tensor(std))
            networks = [nn.Sequential(deepcopy(normalize), network) for network in networks]
        self.networks = nn.ModuleList(inference_form(n) for n in networks)
        self.classes = classes
        self.warnings = tuple(warnings)
        self.given = not identity  # in Python, by a program whose networks nobody has looked at
        self.identity = identity or _identity(map(network_content, self.networks))
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "TeacherEnsemble":
        """Teachers stay in evaluation mode, whatever is asked."""
        return self

    def as_settings(self) -> dict[str, Any]:
        """Returns settings of teachers that find these networks in this process, for `Config(teachers=...)`."""
        networks = [InMemoryTeacher.of(network).model_dump() for network in self.networks]
        return {"count": 0, "networks": networks}

    @property
    def takes_any_image(self) -> bool:
        """Whether it answers for images outside of the data set, which teachers with stored predictions do not."""
        return not any(isinstance(network, StoredTeacher) for network in self.networks)

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        chosen = range(len(self)) if members is None else members
        if not chosen:
            return x.new_zeros(0, len(x), self.classes)
        return torch.stack([self.networks[m](x) for m in chosen]).to(x.dtype)

    def __len__(self) -> int:
        return len(self.networks)


def _identity(contents: Iterable[str]) -> str:
    """Content hash of networks, 16 hexadecimal digits."""
    return hashlib.sha256(" ".join(contents).encode()).hexdigest()[:16]


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
