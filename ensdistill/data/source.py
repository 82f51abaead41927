"""The base of the settings of all data sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from ensdistill.data.sizes import SplitSizes
    from ensdistill.data.splits import RawData


class DataSource(Piece):
    """Base of the settings of all data sources.

    A source whose images are drawn into parts inherits from `SplitSizes` or `OwnSizes`, too: these define `sizes`.
    """

    def __call__(self) -> RawData:
        """Returns all images and labels. Raises DataError if they cannot be read."""
        raise NotImplementedError

    if TYPE_CHECKING:  # or it would hide that of SplitSizes, depending on the order of the bases

        def sizes(self) -> SplitSizes:
            """Returns how many images go where."""
