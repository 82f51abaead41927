"""Second component of a method: the inputs on which teachers and student are evaluated.

To add a perturbation, add one class to a module in this folder.
"""

from typing import Annotated

from ensdistill.methods.perturbations.base import InputPerturbation, NoPerturbation, StepPerturbation
from ensdistill.methods.perturbations.directions import ConfOds, Gaussian, Ods, TDivSDiv
from ensdistill.methods.perturbations.mixtures import CutMix, MixUp
from ensdistill.settings.families import PieceFamily

PERTURBATIONS = PieceFamily("perturbations", InputPerturbation, __name__)
Perturbation = Annotated[InputPerturbation, PERTURBATIONS]

__all__ = [
    "PERTURBATIONS",
    "ConfOds",
    "CutMix",
    "Gaussian",
    "InputPerturbation",
    "MixUp",
    "NoPerturbation",
    "Ods",
    "Perturbation",
    "StepPerturbation",
    "TDivSDiv",
]
