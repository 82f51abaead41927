"""Residual blocks for networks that process small images."""

import torch.nn.functional as F
from torch import Tensor, nn

from ensdistill.models.layers import Conv2d, chain


class BasicBlock(nn.Module):
    """Computes relu(shortcut(x) + residual(x)): (B,channels,H,W) -> (B,width,H/stride,W/stride), sides rounded up."""

    def __init__(self, channels: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.residual = chain(
            conv1=Conv2d(channels, width, 3, stride, padding=1, bias=False),
            norm1=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            conv2=Conv2d(width, width, 3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(width),
        )
        self.shortcut = _shortcut(channels, width, stride, shortcut)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.residual(x).add_(self.shortcut(x)))
        return y


class ZeroPadded(nn.Module):
    """Shortcut without weights (option A of He et al. 2016): every stride-th pixel, and zeros for the new channels."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def _shortcut(channels: int, width: int, stride: int, shortcut: str) -> nn.Module:
    """Returns the shortcut of a block; the identity if the shape does not change."""
    if stride == 1 and channels == width:
        return nn.Identity()
    if shortcut == "identity":
        return ZeroPadded(width - channels, stride)
    return chain(conv=Conv2d(channels, width, 1, stride, bias=False), norm=nn.BatchNorm2d(width))


class PreActivationBlock(nn.Module):
    """Computes shortcut(x) + residual(x): (B,channels,H,W) -> (B,width,H/stride,W/stride), sides rounded up.

    If the shape changes, the shortcut is a 1x1 convolution of the raw input, before BatchNorm and ReLU.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = chain(
            norm1=nn.BatchNorm2d(channels),
            relu1=nn.ReLU(inplace=True),
            conv1=Conv2d(channels, width, 3, stride, padding=1, bias=False),
            norm2=nn.BatchNorm2d(width),
            relu2=nn.ReLU(inplace=True),
            conv2=Conv2d(width, width, 3, padding=1, bias=False),
        )
        same = stride == 1 and channels == width
        self.shortcut = nn.Identity() if same else Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.residual(x).add_(self.shortcut(x))
        return y
