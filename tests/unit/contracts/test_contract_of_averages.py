"""The built-in averages satisfy the contract."""

from ensdistill.methods.averaging import AVERAGES
from ensdistill.testing import AveragingContract
from tests.unit.contracts.contract_pieces import variants


class TestAverages(AveragingContract):
    pieces = variants(AVERAGES)
