"""The third axis: what the student is asked to match. To add a piece: one class, one line in `Transfer`."""

from typing import Annotated

from pydantic import Field

from ensdistill.transfer.aekd import AeKd
from ensdistill.transfer.averaged import Averaged
from ensdistill.transfer.dirichlet import End2, ProxyEnd2
from ensdistill.transfer.ekd import Ekd
from ensdistill.transfer.labels import Labels
from ensdistill.transfer.one_to_one import OneToOne
from ensdistill.transfer.unikd import UniKd

Transfer = Annotated[
    Averaged | OneToOne | Ekd | UniKd | AeKd | End2 | ProxyEnd2 | Labels,
    Field(discriminator="kind"),
]

__all__ = ["AeKd", "Averaged", "Ekd", "End2", "Labels", "OneToOne", "ProxyEnd2", "Transfer", "UniKd"]
