"""Base class of the settings of all networks."""

from __future__ import annotations

from ensdistill.runtime.lazy import nn
from ensdistill.settings.pieces import Piece


class NetworkPiece(Piece):
    """Base of the settings of all networks."""

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a network with random weights, drawn from the global generator of torch.

        Args:
            shape: Channels, height and width of an image.
            classes: Number of classes.

        Returns:
            A network: normalized images (B,*shape) -> logits (B,classes).
        """
        raise NotImplementedError
