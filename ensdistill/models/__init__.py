"""Network architectures. To add one: one class, one line in `Model`. Every network normalises its images itself."""

from ensdistill.models.convnet import Convnet
from ensdistill.models.normalise import build

Model = Convnet

__all__ = ["Convnet", "Model", "build"]
