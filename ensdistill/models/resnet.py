"""Residual networks for small images (He et al. 2016)."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from ensdistill.models.network import NetworkPiece
from ensdistill.runtime.lazy import nn
from ensdistill.settings.base import setting


class ResNet(NetworkPiece):
    """Residual network for small images.

    The network consists of a 3x3 convolution, three stages of residual blocks, global average pooling and a linear
    classifier. Each stage has twice as many channels as the previous stage and half its resolution. Convolutions have
    no bias and are followed by BatchNorm.

    References:
        He et al. 2016, Deep residual learning for image recognition, section 4.2.
    """

    kind: Literal["resnet"] = "resnet"
    depth: int = setting(20, "Number of layers with weights: 6n+2 for n blocks per stage.", ge=8, le=1202)
    width: int = setting(16, "Number of channels of the first stage.", ge=1, le=4096)
    shortcut: Literal["identity", "projection"] = setting(
        "identity",
        "Shortcut in blocks that change the shape: identity fills new channels with zeros, as published; projection is "
        "a 1x1 convolution.",
    )

    @field_validator("depth")
    @classmethod
    def _fills_three_stages(cls, depth: int) -> int:
        return refuse_depth_unless_6n_plus(2, depth)

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a network with random weights: images (B,*shape) -> logits (B,classes).

        Args:
            shape: Channels, height and width of an image.
            classes: Number of classes.
        """
        from ensdistill.models.blocks import BasicBlock  # imported here, because it imports torch
        from ensdistill.models.layers import Conv2d, chain, ending, stages

        def block(channels: int, width: int, stride: int) -> nn.Module:
            return BasicBlock(channels, width, stride, self.shortcut)

        widths = [self.width, 2 * self.width, 4 * self.width]
        return chain(
            conv=Conv2d(shape[0], self.width, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(self.width),
            relu=nn.ReLU(inplace=True),
            **stages(block, self.width, widths, (self.depth - 2) // 6),
            **ending(widths[-1], classes),
        )


def refuse_depth_unless_6n_plus(rest: int, depth: int) -> int:
    """Returns the depth if it equals 6n + rest, so that the three stages have equal numbers of blocks.

    Raises:
        ValueError: The depth is not of this form; the message states the closest valid depths.
    """
    if below := (depth - rest) % 6:
        raise ValueError(f"{depth} is not of the form 6n+{rest}; use {depth - below} or {depth - below + 6}")
    return depth
