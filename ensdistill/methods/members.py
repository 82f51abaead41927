"""Common interface of teachers and students: several classifiers behind one call, and their combined output."""

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
    """Several classifiers that share one input: images (B,C,H,W) in [0,1] -> logits (members,B,classes).

    `len()` returns the number of members. Logits have the data type of the images, even under autocast.
    """

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        """Returns the logits of all members in order, or of the selected members only.

        Args:
            x: Images (B,C,H,W) in [0,1].
            members: Indices of the members to run, in [0, len(self)); None runs all members.

        Returns:
            Logits (len(members),B,classes), with the data type of x.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def for_images(self, part: slice) -> "MultiClassifier":
        """Returns the classifiers for a part of a batch: `self`, or classifiers that return the stored outputs."""
        return self


class TeacherEnsemble(MultiClassifier):
    """M frozen teachers in evaluation mode.

    An ensemble without teachers is allowed; distillation is then ordinary training on the labels.

    Attributes:
        networks: Inference-optimized copies; each maps images (B,C,H,W) in [0,1] to logits (B,classes).
        classes: Number of classes; set only for an ensemble without networks.
        warnings: Issues found in these teachers.
        given: Whether the networks were passed as Python objects without a hash; such networks are not yet checked.
        identity: Content hash of the networks (16 hexadecimal digits), or the hash that the caller passed.
    """

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
        """Copies trained networks and freezes the copies.

        Args:
            networks: Each maps images (B,C,H,W) in [0,1] to logits (B,classes).
            classes: Number of classes; needed only for an ensemble without networks.
            identity: Hash of everything that determines the networks; by default, the hash of the networks themselves.
            warnings: Issues found in these teachers.
            mean: Channel means in [0,1] that were used to normalize the networks' training images. Required only for
                networks that do not normalize their input.
            std: Standard deviation of each channel; required if `mean` is given.

        Raises:
            ValueError: Only one of mean and std is given.
        """
        super().__init__()
        if bool(mean) != bool(std):
            raise ValueError("mean and std: give both, each with one number per channel, or neither")
        if mean:
            normalize = Normalize(torch.tensor(mean), torch.tensor(std))
            networks = [nn.Sequential(deepcopy(normalize), network) for network in networks]
        self.networks = nn.ModuleList(inference_form(n) for n in networks)
        self.classes = classes
        self.warnings = tuple(warnings)
        self.given = not identity  # networks passed as Python objects have not been checked yet
        self.identity = identity or _identity(map(network_content, self.networks))
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "TeacherEnsemble":
        """Returns the ensemble unchanged: teachers always stay in evaluation mode."""
        return self

    def as_settings(self) -> dict[str, Any]:
        """Returns settings for `Config(teachers=...)` that refer to these networks, which stay in memory."""
        networks = [InMemoryTeacher.of(network).model_dump() for network in self.networks]
        return {"count": 0, "networks": networks}

    @property
    def takes_any_image(self) -> bool:
        """Whether all teachers accept any image; a stored teacher accepts only images of its data set."""
        return not any(isinstance(network, StoredTeacher) for network in self.networks)

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        chosen = range(len(self)) if members is None else members
        if not chosen:
            return x.new_zeros(0, len(x), self.classes)
        return torch.stack([self.networks[m](x) for m in chosen]).to(x.dtype)

    def __len__(self) -> int:
        return len(self.networks)


def _identity(contents: Iterable[str]) -> str:
    """Returns one content hash for several networks, 16 hexadecimal digits."""
    return hashlib.sha256(" ".join(contents).encode()).hexdigest()[:16]


class CombinedClassifier(nn.Module):
    """Several classifiers combined into one network, which runs all of them: images (B,C,H,W) -> logits (B,classes)."""

    def __init__(self, members: MultiClassifier, how: str) -> None:
        """Wraps a `MultiClassifier`; `how` has the same meaning as in `combine_members`."""
        super().__init__()
        self.members = members
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return combine_members(self.members(x), self.how)


def combine_members(logits: Tensor, how: str, temperature: float = 1.0) -> Tensor:
    """Returns the combined logits of several members at temperature T.

    Args:
        logits: Logits (members,B,c).
        how: `mean_of_logits`, `sum_of_logits` or `mean_of_probabilities`.
        temperature: Temperature T, above 0, by which the logits are divided.

    Returns:
        Logits (B,c); log-probabilities with `mean_of_probabilities`.
    """
    if how == "mean_of_probabilities":
        return (logits / temperature).log_softmax(-1).logsumexp(0) - math.log(len(logits))
    return (logits.sum(0) if how == "sum_of_logits" else logits.mean(0)) / temperature
