"""Network architectures; every network normalizes its input.

To add a network, add one class to a module in this folder.
"""

from typing import Annotated

from ensdistill.models.construction import build
from ensdistill.models.convnet import Convnet
from ensdistill.models.custom import CustomModel
from ensdistill.models.from_timm import Timm
from ensdistill.models.from_torchvision import Torchvision
from ensdistill.models.network import NetworkPiece
from ensdistill.models.resnet import ResNet
from ensdistill.models.wide_resnet import WideResNet
from ensdistill.settings.families import PieceFamily
from ensdistill.settings.pieces import piece_code

_HELPERS = (  # modules that define no piece
    *("blocks", "fine_tuning", "fusion", "image_statistics", "in_memory_teacher", "layers", "normalization"),
    *("stored_predictions", "teacher_files", "weight_files"),
)
MODELS = PieceFamily("models", NetworkPiece, __name__, skip=_HELPERS)
Model = Annotated[NetworkPiece, MODELS]


def code_identity(model: NetworkPiece) -> str:
    """Returns a hash of the code of a user-defined network; empty for built-in networks."""
    return model.code() if isinstance(model, CustomModel) else piece_code(type(model))


__all__ = [
    "MODELS",
    "Convnet",
    "CustomModel",
    "Model",
    "NetworkPiece",
    "ResNet",
    "Timm",
    "Torchvision",
    "WideResNet",
    "build",
    "code_identity",
]
