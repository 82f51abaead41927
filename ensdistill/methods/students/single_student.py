"""Network of the student `single`."""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor, nn

from ensdistill.methods.students.base import Student


class SingleStudent(Student):
    """Adapts a plain network to the `Student` interface: logits (1,B,classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        logits: Tensor = self.network(x)
        return logits.unsqueeze(0).to(x.dtype)

    def __len__(self) -> int:
        return 1

    def merged(self) -> nn.Module:
        return deepcopy(self.network)
