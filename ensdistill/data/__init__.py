"""Images and labels. To add a source: one class, one line in `DataSettings`.

`load_data` gives what training may see. The test split has a door of its own, `load_test`, and only the evaluation
command goes through it.
"""

from typing import Annotated

from pydantic import Field

from ensdistill.data.digits import Digits
from ensdistill.data.image_folder import ImageFolder
from ensdistill.data.splits import Data, Source, Split, split_source

DataSettings = Annotated[Digits | ImageFolder, Field(discriminator="kind")]


def load_data(settings: Digits | ImageFolder) -> Data:
    """Training, validation and unlabelled images, disjoint, by the settings' seed.

    Raises DataError if the images cannot be read, ConfigError if there are too few of them.
    """
    return split_source(settings(), settings.sizes())[0]


def load_test(settings: Digits | ImageFolder) -> Split:
    """The test images of the same split. Nothing that trains, chooses or stops may call this."""
    return split_source(settings(), settings.sizes())[1]


__all__ = ["Data", "DataSettings", "Digits", "ImageFolder", "Source", "Split", "load_data", "load_test"]
