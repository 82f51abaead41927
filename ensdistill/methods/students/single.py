"""The plain student: one network without subnetworks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.students.settings import StudentPiece

if TYPE_CHECKING:
    from torch import nn

    from ensdistill.methods.students.single_student import SingleStudent


class Single(StudentPiece):
    """The unmodified network: K = 1."""

    kind: Literal["single"] = "single"

    def __call__(self, network: nn.Module) -> SingleStudent:
        """Returns a student that consists of one network.

        Args:
            network: Images (B,C,H,W) in [0,1] -> logits (B,classes).
        """
        from ensdistill.methods.students.single_student import SingleStudent  # imported here, because it imports torch

        return SingleStudent(network)

    @property
    def depends_on_length(self) -> bool:
        """False: there is nothing to merge."""
        return False
