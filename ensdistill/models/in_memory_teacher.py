"""Teachers in the memory of a Python program."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from typing import TYPE_CHECKING

from ensdistill.errors import DataError
from ensdistill.models.teacher_files import LoadedTeacher
from ensdistill.runtime.in_memory import keep, kept
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import Settings, setting

if TYPE_CHECKING:
    from torch import nn

    from ensdistill.data import DataSplits


class InMemoryTeacher(Settings):
    """A network that a Python program passed (see `ensdistill.TeacherEnsemble`); the settings contain its hash."""

    content: str = setting(..., "Hash of a network passed by a Python program.", min_length=1)

    @classmethod
    def of(cls, network: nn.Module) -> InMemoryTeacher:
        """Stores a network in the memory of this process and returns the settings that refer to it.

        Args:
            network: Images (B,C,H,W) in [0,1] -> logits (B,classes).
        """
        content = network_content(network)
        keep(content, network)
        return cls(content=content)

    @property
    def there(self) -> bool:
        """Whether the network is in the memory of this process."""
        return kept(self.content) is not None

    def __call__(self, data: DataSplits) -> LoadedTeacher:
        """Returns a copy of the network on the device of the data.

        Raises:
            DataError: The network was passed in another process.
        """
        network: nn.Module | None = kept(self.content)
        if network is None:
            raise DataError(
                f"teachers.networks: the network {self.content} was in the memory of another Python program; pass it "
                "again with ensdistill.TeacherEnsemble, in the program that uses these settings"
            )
        return LoadedTeacher(deepcopy(network).to(data.train.images.device), {"in_memory": self.content})


def network_content(network: nn.Module) -> str:
    """Returns a hash of the layers, parameters and buffers of a network; 16 hexadecimal digits."""
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
