"""Interface of all augmentations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ImageAugmentation(Piece):
    """Base class of all augmentations: random changes to training images.

    During distillation, teachers and student receive the same augmented images. Validation, testing and the computation
    of BatchNorm statistics use images without augmentation.
    """

    @property
    def changes_images(self) -> bool:
        """Whether the augmentation can change images; if not, teacher logits can be cached."""
        return True

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns augmented images.

        Args:
            images: uint8 (B,C,H,W); must not be modified.
            generator: The only source of random numbers, on the device of the images. Its state depends only on
                the seed and the epoch, so that a resumed run gives the same result as an uninterrupted run.

        Returns:
            uint8 (B,C,H,W) on the same device.
        """
        raise NotImplementedError
