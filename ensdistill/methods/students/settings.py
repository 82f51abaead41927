"""Base class of all student settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from torch import nn

    from ensdistill.methods.students.base import Student


class StudentPiece(Piece):
    """Base class of all student settings."""

    def __call__(self, network: nn.Module) -> Student:
        """Returns a student that reuses the layers of a network; do not use the network afterwards.

        Random numbers are drawn from torch's global generator.

        Args:
            network: A network: images (B,C,H,W) in [0,1] -> logits (B,classes).
        """
        raise NotImplementedError

    @property
    def depends_on_length(self) -> bool:
        """Whether the training depends on the total number of epochs, for example because of `merge_after`."""
        return True
