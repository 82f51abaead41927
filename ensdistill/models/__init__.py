"""Network architectures. To add one: one class, one line in `Model`. Every network normalizes its images itself."""

from typing import Annotated

from pydantic import Field

from ensdistill.models.construction import build
from ensdistill.models.convnet import Convnet
from ensdistill.models.custom import CustomModel
from ensdistill.models.from_torchvision import Torchvision
from ensdistill.models.resnet import ResNet
from ensdistill.models.wide_resnet import WideResNet

Model = Annotated[
    Convnet | ResNet | WideResNet | Torchvision | CustomModel,
    Field(discriminator="kind"),
]


def code_identity(model: Model) -> str:
    """What identifies the code of a network that is not part of this project; empty for those that are."""
    return model.code() if isinstance(model, CustomModel) else ""


__all__ = ["Convnet", "CustomModel", "Model", "ResNet", "Torchvision", "WideResNet", "build", "code_identity"]
