"""A small convolutional network for small images."""

from __future__ import annotations

import math
from typing import Literal

from ensdistill.errors import ConfigError
from ensdistill.models.network import NetworkPiece
from ensdistill.runtime.lazy import nn
from ensdistill.settings.base import setting


class Convnet(NetworkPiece):
    """Blocks of 3x3 convolution, BatchNorm, 2x2 max pooling (none in the last) and ReLU, each twice as wide as the
    one before; then global average pooling and a linear classifier."""

    kind: Literal["convnet"] = "convnet"
    width: int = setting(16, "Channels of the first block.", ge=1, le=4096)
    blocks: int = setting(3, "Number of blocks; every one but the last halves the image.", ge=1, le=8)

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A network with random weights for images (B,*shape) -> logits (B,classes).

        Raises ConfigError if the images are too small for so many blocks.
        """
        channels, *sides = shape
        if min(sides) < 2 ** (self.blocks - 1):
            raise ConfigError(
                f"model.blocks: {self.blocks} blocks halve the images {self.blocks - 1} times, "
                f"and {sides[0]}x{sides[1]} pixels are too few for that; take {int(math.log2(min(sides))) + 1} or less"
            )
        layers: list[nn.Module] = []
        for block in range(self.blocks):
            width = self.width * 2**block
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
            ]
            # Pooling commutes with ReLU; this way round ReLU has a quarter of the work, forward and backward.
            layers += [nn.MaxPool2d(2)] if block < self.blocks - 1 else []
            layers += [nn.ReLU(inplace=True)]
            channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
