"""Wide residual networks with pre-activation blocks (Zagoruyko and Komodakis 2016)."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from ensdistill.models.network import NetworkPiece
from ensdistill.models.resnet import refuse_depth_unless_6n_plus
from ensdistill.runtime.lazy import nn
from ensdistill.settings.base import setting

STEM = 16  # number of channels of the first convolution, the same for every widening factor


class WideResNet(NetworkPiece):
    """Wide residual network WRN-depth-width with pre-activation blocks.

    The network consists of a 3x3 convolution to 16 channels without BatchNorm; three stages of blocks with 16, 32 and
    64 times `width` channels; BatchNorm and ReLU; global average pooling and a linear classifier. The layout follows
    the official code of Nam et al. 2022.

    References:
        Zagoruyko and Komodakis 2016, Wide residual networks, table 1.
    """

    kind: Literal["wide_resnet"] = "wide_resnet"
    depth: int = setting(28, "Number of layers with weights: 6n+4 for n blocks per stage.", ge=10, le=1000)
    width: int = setting(4, "Widening factor of all stages.", ge=1, le=256)

    @field_validator("depth")
    @classmethod
    def _fills_three_stages(cls, depth: int) -> int:
        return refuse_depth_unless_6n_plus(4, depth)

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a network with random weights: images (B,*shape) -> logits (B,classes).

        Args:
            shape: Channels, height and width of an image.
            classes: Number of classes.
        """
        from ensdistill.models.blocks import PreActivationBlock  # imported here, because it imports torch
        from ensdistill.models.layers import Conv2d, chain, ending, stages

        widths = [16 * self.width, 32 * self.width, 64 * self.width]
        return chain(
            conv=Conv2d(shape[0], STEM, 3, padding=1, bias=False),
            **stages(PreActivationBlock, STEM, widths, (self.depth - 4) // 6),
            norm=nn.BatchNorm2d(widths[-1]),
            relu=nn.ReLU(inplace=True),
            **ending(widths[-1], classes),
        )
