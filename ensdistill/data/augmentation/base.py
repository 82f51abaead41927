"""Interface of all augmentations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ImageAugmentation(Piece):
    """Base of all augmentations: random changes of training images, identical for teachers and student.

    Validation, testing and the computation of BatchNorm statistics use images without augmentation.
    """

    @property
    def changes_images(self) -> bool:
        """Whether the augmentation can change any image; if not, teacher logits are cached."""
        return True

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns augmented images.

        Args:
            images: uint8 (B,C,H,W); never written to.
            generator: The only source of random numbers, on the device of the images. Its state is a function of seed
                and epoch, so a resumed training continues exactly.

        Returns:
            uint8 (B,C,H,W) on the same device.
        """
        raise NotImplementedError
