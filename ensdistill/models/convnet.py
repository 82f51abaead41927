"""A small convolutional network for small images."""

from __future__ import annotations

import math
from typing import Literal

from ensdistill.errors import ConfigError
from ensdistill.models.network import NetworkPiece
from ensdistill.runtime.lazy import nn
from ensdistill.settings.base import setting


class Convnet(NetworkPiece):
    """A small convolutional network: blocks, global average pooling and a linear classifier.

    A block consists of a 3x3 convolution, BatchNorm, 2x2 max pooling (except in the last block) and ReLU. Each block
    has twice as many channels as the previous block.
    """

    kind: Literal["convnet"] = "convnet"
    width: int = setting(16, "Number of channels of the first block.", ge=1, le=4096)
    blocks: int = setting(3, "Number of blocks; each block except the last halves the resolution.", ge=1, le=8)

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a network with random weights: images (B,*shape) -> logits (B,classes).

        Args:
            shape: Channels, height and width of an image.
            classes: Number of classes.

        Raises:
            ConfigError: The images are too small for this number of blocks.
        """
        channels, *sides = shape
        if min(sides) < 2 ** (self.blocks - 1):
            raise ConfigError(
                f"model.blocks: {self.blocks} blocks halve the images {self.blocks - 1} times, "
                f"but the images have only {sides[0]}x{sides[1]} pixels; use at most {int(math.log2(min(sides))) + 1}"
            )
        layers: list[nn.Module] = []
        for block in range(self.blocks):
            width = self.width * 2**block
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
            ]
            # Pooling commutes with ReLU; in this order, ReLU processes only a quarter of the values.
            layers += [nn.MaxPool2d(2)] if block < self.blocks - 1 else []
            layers += [nn.ReLU(inplace=True)]
            channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
