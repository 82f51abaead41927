"""The built-in perturbations satisfy the contract."""

import copy
from typing import Any

import pytest
import torch

from ensdistill.methods.perturbations import PERTURBATIONS, NoPerturbation
from ensdistill.testing import PerturbationContract
from ensdistill.testing.perturbations import ENSEMBLE, images, student
from ensdistill.testing.toy import streams
from tests.unit.contracts.contract_pieces import variants


class TestPerturbations(PerturbationContract):
    pieces = variants(PERTURBATIONS)
    without_chance = (NoPerturbation,)


@pytest.mark.parametrize("piece", variants(PERTURBATIONS))
def test_bfloat16_images_are_close_to_float32_images(piece: Any) -> None:
    teachers, pupil = copy.deepcopy(ENSEMBLE).bfloat16(), student().bfloat16()
    shown = piece(images().bfloat16(), teachers, pupil, streams())
    assert shown.dtype == torch.bfloat16
    assert (shown - piece(images(), ENSEMBLE, student(), streams())).abs().max() < 0.25
