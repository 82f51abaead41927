"""The built-in augmentation satisfies the contract with each of its operations."""

from ensdistill.data import StandardAugmentation
from ensdistill.testing import AugmentationContract


class TestAugmentations(AugmentationContract):
    pieces = (
        StandardAugmentation(),
        StandardAugmentation(crop_ratio=2.0, magnitude=1.0),  # no effect because their operations are disabled
        StandardAugmentation(pad=2),
        StandardAugmentation(crop_scale=0.08),
        StandardAugmentation(flip=True),
        StandardAugmentation(color_jitter=0.4),
        StandardAugmentation(rand_augment=2),
        StandardAugmentation(rand_augment=10, magnitude=1.0),
        StandardAugmentation(erasing=0.5),
        StandardAugmentation(cutout=4),
    )
