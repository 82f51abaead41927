"""The base of the settings of all students."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from torch import nn

    from ensdistill.methods.students.base import Student


class StudentPiece(Piece):
    """Base of the settings of all students."""

    def __call__(self, network: nn.Module) -> Student:
        """Returns a student made of a network, which is not used elsewhere afterwards.

        Random numbers come from torch's global generator.

        Args:
            network: Images (B,C,H,W) in [0,1] -> logits (B,classes).
        """
        raise NotImplementedError
