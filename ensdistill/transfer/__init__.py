"""The third axis: what the student is asked to match. To add a piece: one class, one line in `Transfer`."""

from typing import Annotated

from pydantic import Field

from ensdistill.transfer.averaged import Averaged
from ensdistill.transfer.labels import Labels
from ensdistill.transfer.one_to_one import OneToOne

Transfer = Annotated[
    Averaged | OneToOne | Labels,
    Field(discriminator="kind"),
]

__all__ = ["Averaged", "Labels", "OneToOne", "Transfer"]
