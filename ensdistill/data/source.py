"""Base class of all data sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from ensdistill.data.sizes import SplitSizes
    from ensdistill.data.splits import RawData


class DataSource(Piece):
    """Base class of the settings of all data sources.

    A source also inherits from `SplitSizes` or `OwnSizes`, which define the `sizes` method.
    """

    def __call__(self) -> RawData:
        """Returns all images and labels of the source.

        Raises:
            DataError: The images cannot be read.
        """
        raise NotImplementedError

    if TYPE_CHECKING:  # for type checkers only: at run time, this method could hide SplitSizes.sizes

        def sizes(self) -> SplitSizes:
            """Returns the sizes of the splits."""
