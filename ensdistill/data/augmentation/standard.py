"""The built-in augmentation: a fixed sequence of operations, all disabled by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.data.augmentation.base import ImageAugmentation
from ensdistill.data.augmentation.colors import jitter
from ensdistill.data.augmentation.geometry import cut_out, erase, flip, pad_and_crop, random_resized_crop
from ensdistill.data.augmentation.rand_augment import rand_augment
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class StandardAugmentation(ImageAugmentation):
    """A random crop, a random flip, changes of color and geometry, and erased regions.

    The operations are applied in the order of the settings, with separate random numbers for each image. With the
    default settings, images are unchanged.

    `pad: 4` with `flip: true`, applied to raw pixels, is the augmentation used in papers on ensemble distillation.
    `crop_scale: 0.08` with `flip: true` is the usual augmentation for ImageNet.

    References:
        He et al. 2016, Deep residual learning for image recognition, section 4.2 (`pad: 4`, `flip: true`).
        Szegedy et al. 2015, Going deeper with convolutions, section 6 (`crop_scale: 0.08`).
        Cubuk et al. 2020, RandAugment (`rand_augment`).
        Zhong et al. 2020, Random erasing data augmentation (`erasing`).
        DeVries and Taylor 2017, Improved regularization of convolutional neural networks with cutout (`cutout`).
    """

    kind: Literal["standard"] = "standard"
    pad: int = setting(
        0,
        "Number of zero pixels added on each side before a random crop to the original size; 0 for no crop.",
        ge=0,
        le=1024,
    )
    crop_scale: float = setting(
        0.0,
        "Smallest area of a random crop, as a fraction of the image area; the crop is resized to the original size. "
        "0 for no crop.",
        ge=0,
        le=1,
    )
    crop_ratio: float = setting(
        4 / 3,
        "Largest aspect ratio (width / height or height / width) of a random resized crop.",
        ge=1,
        le=10,
    )
    flip: bool = setting(False, "Whether to mirror images horizontally at random, each with probability 0.5.")
    color_jitter: float = setting(
        0.0,
        "Largest relative change of brightness, contrast and saturation, drawn independently; 0 for none.",
        ge=0,
        le=1,
    )
    rand_augment: int = setting(
        0, "Number of RandAugment operations per image, drawn from 14 operations; 0 for none.", ge=0, le=10
    )
    magnitude: float = setting(
        0.3,
        "Strength of the RandAugment operations, as a fraction of the maximum; 0.3 corresponds to magnitude 9 of 30.",
        ge=0,
        le=1,
    )
    erasing: float = setting(
        0.0, "Probability that a random rectangle in an image is replaced by random pixels; 0 for none.", ge=0, le=1
    )
    cutout: int = setting(
        0,
        "Side length in pixels of a black square drawn at a random position in each image; 0 for none.",
        ge=0,
        le=1024,
    )

    @property
    def changes_images(self) -> bool:
        """Whether any operation is enabled."""
        return any(
            (self.pad, self.crop_scale, self.flip, self.color_jitter, self.rand_augment, self.erasing, self.cutout)
        )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns augmented images.

        Args:
            images: uint8 (B,C,H,W).
            generator: Random generator on the device of the images. Random numbers are drawn in the order of the
                operations, and only for operations that are enabled.

        Returns:
            uint8 (B,C,H,W): a new tensor, or `images` itself if all operations are disabled.
        """
        if self.pad:
            images = pad_and_crop(images, self.pad, generator)
        if self.crop_scale:
            images = random_resized_crop(images, self.crop_scale, self.crop_ratio, generator)
        if self.flip:
            images = flip(images, generator)
        if self.color_jitter:
            images = jitter(images, self.color_jitter, generator)
        if self.rand_augment:
            images = rand_augment(images, self.rand_augment, self.magnitude, generator)
        if self.erasing:
            images = erase(images, self.erasing, generator)
        if self.cutout:
            images = cut_out(images, self.cutout, generator)
        return images
