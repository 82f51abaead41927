"""The data of a study, in the form in which all of its trials share them."""

from dataclasses import dataclass
from typing import Any

import torch

from ensdistill.data import Data, Split
from ensdistill.errors import ConfigIssue


@dataclass(frozen=True)
class SharedData:
    """Data as NumPy arrays, which Ray keeps in its object store and workers map, not copy."""

    arrays: dict[str, Any]
    class_names: tuple[str, ...]
    identity: str
    warnings: tuple[ConfigIssue, ...] = ()
    own_validation: bool = False

    @classmethod
    def of(cls, data: Data) -> "SharedData":
        """Packs what `to` gives back."""
        arrays = {}
        for part in ("train", "validation", "unlabelled"):
            split: Split = getattr(data, part)
            arrays[part] = (split.images.cpu().numpy(), split.labels.cpu().numpy())
        return cls(arrays, data.class_names, data.identity, data.warnings, data.own_validation)

    def to(self, device: torch.device | str) -> Data:
        """The data on a device. On the CPU the images are the shared memory itself: never write to them."""
        train, validation, unlabelled = (
            Split(*map(torch.from_numpy, self.arrays[part])).to(device)
            for part in ("train", "validation", "unlabelled")
        )
        about = (self.class_names, self.identity, self.warnings, self.own_validation)
        return Data(train, validation, unlabelled, *about)
