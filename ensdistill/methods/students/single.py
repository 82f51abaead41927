"""The plain student: one network, one function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.students.settings import StudentPiece

if TYPE_CHECKING:
    from torch import nn

    from ensdistill.methods.students.single_student import SingleStudent


class Single(StudentPiece):
    """The network as it is: K = 1."""

    kind: Literal["single"] = "single"

    def __call__(self, network: nn.Module) -> SingleStudent:
        """network: images (B,C,H,W) -> logits (B,classes)."""
        from ensdistill.methods.students.single_student import SingleStudent  # here: imports torch

        return SingleStudent(network)
