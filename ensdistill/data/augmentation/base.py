"""Interface of augmentations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ImageAugmentation(Piece):
    """Base of all augmentations: random changes of training images, seen by teachers and student alike.

    Validation, test and BatchNorm statistics use the images without augmentation.
    """

    @property
    def changes_images(self) -> bool:
        """Whether any image can change; if not, teacher logits are cached."""
        return True

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns augmented images.

        Args:
            images: uint8 (B,C,H,W); never written to.
            generator: The only source of random numbers, on the device of the images. Its state follows from seed and
                epoch, so a resumed training continues exactly.

        Returns:
            uint8 (B,C,H,W) on the same device.
        """
        raise NotImplementedError
