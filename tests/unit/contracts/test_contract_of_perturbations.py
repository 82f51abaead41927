"""The built-in perturbations keep the contract."""

from ensdistill.methods.perturbations import PERTURBATIONS, NoPerturbation
from ensdistill.testing import PerturbationContract
from tests.unit.contracts.contract_pieces import variants


class TestPerturbations(PerturbationContract):
    pieces = variants(PERTURBATIONS)
    without_chance = (NoPerturbation,)
