"""The third axis: what the student is asked to match. To add a piece: one class, one line in `Loss`."""

from typing import Annotated

from pydantic import Field

from ensdistill.methods.losses.aekd import AeKd
from ensdistill.methods.losses.averaged import Averaged
from ensdistill.methods.losses.dirichlet import End2, ProxyEnd2
from ensdistill.methods.losses.ekd import Ekd
from ensdistill.methods.losses.labels import Labels
from ensdistill.methods.losses.one_to_one import OneToOne
from ensdistill.methods.losses.unikd import UniKd

Loss = Annotated[
    Averaged | OneToOne | Ekd | UniKd | AeKd | End2 | ProxyEnd2 | Labels,
    Field(discriminator="kind"),
]

__all__ = ["AeKd", "Averaged", "Ekd", "End2", "Labels", "Loss", "OneToOne", "ProxyEnd2", "UniKd"]
