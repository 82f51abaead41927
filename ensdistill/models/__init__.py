"""Network architectures. To add one: one class, one line in `Model`. Every network normalises its images itself."""

from typing import Annotated

from pydantic import Field

from ensdistill.models.convnet import Convnet
from ensdistill.models.from_torchvision import Torchvision
from ensdistill.models.imported import Imported
from ensdistill.models.normalise import build
from ensdistill.models.resnet import ResNet
from ensdistill.models.wide_resnet import WideResNet

Model = Annotated[
    Convnet | ResNet | WideResNet | Torchvision | Imported,
    Field(discriminator="kind"),
]

__all__ = ["Convnet", "Imported", "Model", "ResNet", "Torchvision", "WideResNet", "build"]
