"""Network architectures. To add one: one class, one line in `Model`. Every network normalizes its images itself."""

from typing import Annotated

from pydantic import Field

from ensdistill.models.convnet import Convnet
from ensdistill.models.from_torchvision import Torchvision
from ensdistill.models.imported import Imported
from ensdistill.models.normalization import build
from ensdistill.models.resnet import ResNet
from ensdistill.models.wide_resnet import WideResNet

Model = Annotated[
    Convnet | ResNet | WideResNet | Torchvision | Imported,
    Field(discriminator="kind"),
]


def code_of(model: Model) -> str:
    """What identifies the code of a network that is not part of this project; empty for those that are."""
    return model.code() if isinstance(model, Imported) else ""


__all__ = ["Convnet", "Imported", "Model", "ResNet", "Torchvision", "WideResNet", "build", "code_of"]
