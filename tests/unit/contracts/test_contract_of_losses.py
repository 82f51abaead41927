"""The built-in losses satisfy the contract."""

from typing import Any

import pytest

from ensdistill.methods.losses import LOSSES, AeKd, Ekd, End2, OneToOne, ProxyEnd2
from ensdistill.testing import LossContract
from ensdistill.testing.losses import OTHER_SIZES
from tests.unit.contracts.contract_pieces import variants


class TestLosses(LossContract):
    pieces = variants(LOSSES)
    constant_weights = (AeKd,)
    densities = (End2, ProxyEnd2)
    pairs = (OneToOne, Ekd)


@pytest.mark.slow
@pytest.mark.parametrize("piece", variants(LOSSES))
@pytest.mark.parametrize(("subnetworks", "teachers"), OTHER_SIZES)
def test_the_gradient_agrees_with_finite_differences_for_additional_ensemble_sizes(
    piece: Any, subnetworks: int, teachers: int
) -> None:
    TestLosses().test_gradient_equals_finite_differences(piece, subnetworks, teachers)
