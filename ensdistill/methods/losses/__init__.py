"""Third component of a method: the distillation loss. To add a loss, add one class to a module in this folder."""

from typing import Annotated

from ensdistill.methods.losses.aekd import AeKd
from ensdistill.methods.losses.averaged import Averaged
from ensdistill.methods.losses.base import DistillationLoss, WeightedDistillationLoss
from ensdistill.methods.losses.camkd import CaMkd
from ensdistill.methods.losses.dirichlet import End2, ProxyEnd2
from ensdistill.methods.losses.dist import Dist
from ensdistill.methods.losses.ekd import Ekd
from ensdistill.methods.losses.labels import Labels
from ensdistill.methods.losses.one_to_one import OneToOne
from ensdistill.methods.losses.unikd import UniKd
from ensdistill.methods.losses.wttm import Wttm
from ensdistill.settings.families import PieceFamily

LOSSES = PieceFamily("losses", DistillationLoss, __name__)
Loss = Annotated[DistillationLoss, LOSSES]

__all__ = [
    "LOSSES",
    "AeKd",
    "Averaged",
    "CaMkd",
    "Dist",
    "DistillationLoss",
    "Ekd",
    "End2",
    "Labels",
    "Loss",
    "OneToOne",
    "ProxyEnd2",
    "UniKd",
    "WeightedDistillationLoss",
    "Wttm",
]
