"""The built-in optimizers satisfy the contract."""

from ensdistill.methods.optimizers import OPTIMIZERS, AdamW, TorchOptim
from ensdistill.testing import OptimizerContract
from tests.unit.contracts.contract_pieces import variants


class TestOptimizers(OptimizerContract):
    pieces = (*variants(OPTIMIZERS), AdamW(decay_norms_and_biases=False), TorchOptim(name="Adafactor"))
