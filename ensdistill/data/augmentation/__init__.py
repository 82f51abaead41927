"""Random augmentation of whole batches, on the device of the images.

To add an augmentation, add a class to a module in this folder.
"""

from typing import Annotated

from ensdistill.data.augmentation.base import ImageAugmentation
from ensdistill.data.augmentation.standard import StandardAugmentation
from ensdistill.settings.families import PieceFamily

AUGMENTATIONS = PieceFamily("augmentations", ImageAugmentation, __name__, default="standard")
Augmentation = Annotated[ImageAugmentation, AUGMENTATIONS]

__all__ = ["AUGMENTATIONS", "Augmentation", "ImageAugmentation", "StandardAugmentation"]
