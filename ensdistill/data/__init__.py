"""Images and labels. To add a data source, add a class to a module in this folder.

`load_data` returns the splits that training may use. Only `load_test` returns the test split. Only the final evaluation
calls `load_test`, after all decisions have been made.
"""

from pathlib import Path
from typing import Annotated

from ensdistill.data.augmentation import Augmentation, ImageAugmentation, StandardAugmentation
from ensdistill.data.cifar import Cifar10, Cifar100
from ensdistill.data.cluttered_digits import ClutteredDigits
from ensdistill.data.digits import Digits
from ensdistill.data.entry_source import EntrySource
from ensdistill.data.fitting import fit_images
from ensdistill.data.hub_dataset import HubDataset
from ensdistill.data.image_folder import ImageFolder
from ensdistill.data.in_memory import Data
from ensdistill.data.npz import Npz
from ensdistill.data.own_source import read
from ensdistill.data.sizes import OwnSizes, SplitSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import DataSplits, RawData, Shape, Split, split_source
from ensdistill.data.table import Table
from ensdistill.data.torch_dataset import DatasetCall, TorchDataset
from ensdistill.errors import DataError
from ensdistill.settings.families import PieceFamily

SOURCES = PieceFamily("data", DataSource, __name__, skip=("datasets",))
DataSettings = Annotated[DataSource, SOURCES]


def load_data(settings: DataSource, studies: str | Path = "studies") -> DataSplits:
    """Returns the training, validation and unlabeled images of a data source.

    The splits are disjoint and depend on the seed in the settings.

    Args:
        settings: The data source.
        studies: Folder of all results. Decoded images of large data sets are stored in its `datasets` subfolder, or in
            the folder given by the environment variable ENSDISTILL_DATASETS.

    Raises:
        DataError: The images cannot be read.
        ConfigError: There are fewer images than the split sizes require.
    """
    return split_source(*read(settings, studies))[0]


def load_test(settings: DataSource, studies: str | Path = "studies") -> Split:
    """Returns the test images of a data source, disjoint from the splits of `load_data`.

    Code that trains, selects or stops must not call this function.

    Args:
        settings: The data source.
        studies: Folder of all results. Decoded images of large data sets are stored in its `datasets` subfolder, or in
            the folder given by the environment variable ENSDISTILL_DATASETS.

    Raises:
        DataError: The images cannot be read, or the source has no test images.
        ConfigError: There are fewer images than the split sizes require.
    """
    test = split_source(*read(settings, studies))[1]
    if not len(test):
        raise DataError("data.test_size: the data have no test images; set data.test_size, or add a test split")
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
    "DatasetCall",
    "Digits",
    "EntrySource",
    "HubDataset",
    "ImageAugmentation",
    "ImageFolder",
    "Npz",
    "OwnSizes",
    "RawData",
    "Shape",
    "Split",
    "SplitSizes",
    "StandardAugmentation",
    "Table",
    "TorchDataset",
    "fit_images",
    "load_data",
    "load_test",
]
