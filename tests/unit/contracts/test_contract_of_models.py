"""The built-in networks satisfy the contract. Those of torchvision are tested in tests/unit/core/models."""

from ensdistill.models import Convnet, ResNet, WideResNet
from ensdistill.testing import ModelContract


class TestModels(ModelContract):
    pieces = (
        Convnet(width=4, blocks=2),
        ResNet(depth=8, width=4),
        ResNet(depth=8, width=4, shortcut="projection"),
        WideResNet(depth=10, width=1),
    )
