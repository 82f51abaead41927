"""Images and labels. To add a source: one class in a module of this folder.

`load_data` gives what training may see. The test split has a door of its own, `load_test`, and only evaluation goes
through it, after everything is decided.
"""

from typing import Annotated

from ensdistill.data.augmentation import Augmentation
from ensdistill.data.cifar import Cifar10, Cifar100
from ensdistill.data.cluttered_digits import ClutteredDigits
from ensdistill.data.digits import Digits
from ensdistill.data.fitting import fit_images
from ensdistill.data.image_folder import ImageFolder
from ensdistill.data.in_memory import Data
from ensdistill.data.npz import Npz
from ensdistill.data.own_source import read
from ensdistill.data.sizes import OwnSizes, SplitSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import DataSplits, RawData, Shape, Split, split_source
from ensdistill.errors import DataError
from ensdistill.settings.families import PieceFamily

SOURCES = PieceFamily("data", DataSource, __name__, skip=("datasets",))
DataSettings = Annotated[DataSource, SOURCES]


def load_data(settings: DataSource) -> DataSplits:
    """Training, validation and unlabeled images, disjoint, by the settings' seed.

    Raises DataError if the images cannot be read, ConfigError if there are too few of them.
    """
    return split_source(*read(settings))[0]


def load_test(settings: DataSource) -> Split:
    """The test images of the same split. Nothing that trains, chooses or stops may call this.

    Raises DataError if there are none.
    """
    test = split_source(*read(settings))[1]
    if not len(test):
        raise DataError("data.test_size: these data have no test images; set data.test_size, or give them a test part")
    return test


__all__ = [
    "SOURCES",
    "Augmentation",
    "Cifar10",
    "Cifar100",
    "ClutteredDigits",
    "Data",
    "DataSettings",
    "DataSource",
    "DataSplits",
    "Digits",
    "ImageFolder",
    "Npz",
    "OwnSizes",
    "RawData",
    "Shape",
    "Split",
    "SplitSizes",
    "fit_images",
    "load_data",
    "load_test",
]
