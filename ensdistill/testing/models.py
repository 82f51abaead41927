"""Contract for networks: logits are finite and independent of other images; weights depend only on the seed."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.models import build
from ensdistill.testing.contract import Contract
from ensdistill.testing.toy import CLASSES, toy_data

DATA = toy_data()


def images() -> Tensor:
    """Returns six images of shape (6,1,8,8) with values in [0,1]."""
    return DATA.train[slice(0, 6)][0]


def network(piece: Any, seed: int = 0) -> nn.Module:
    """Returns a new network built by a piece."""
    return build(piece, DATA, seed)


class ModelContract(Contract):
    """Tests for networks; a piece must be able to build a network for gray images of 8x8 pixels."""

    def test_logits_are_finite_with_one_row_per_image(self, piece: Any) -> None:
        logits = network(piece).eval()(images())
        assert logits.shape == (6, CLASSES)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()

    def test_weights_depend_only_on_the_seed(self, piece: Any) -> None:
        one, same, other = (network(piece, seed).eval()(images()) for seed in (0, 0, 1))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_global_random_state_is_unchanged(self, piece: Any) -> None:
        before = torch.get_rng_state()
        network(piece)
        assert torch.equal(torch.get_rng_state(), before)

    def test_logits_do_not_depend_on_other_images_in_evaluation_mode(self, piece: Any) -> None:
        made = network(piece).eval()
        assert_close(made(images()[2:3]), made(images())[2:3], atol=1e-5, rtol=1e-5)

    def test_gradient_reaches_every_parameter(self, piece: Any) -> None:
        made = network(piece).train()
        weights = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(0))
        (made(images()) * weights).sum().backward()
        missing = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert missing == []

    def test_state_dict_contains_the_complete_state(self, piece: Any) -> None:
        one, other = network(piece, 0), network(piece, 1)
        one.train()(images())  # changes the BatchNorm statistics
        other.load_state_dict(one.state_dict())
        assert torch.equal(other.eval()(images()), one.eval()(images()))

    def test_deep_copy_is_independent(self, piece: Any) -> None:
        made = network(piece).eval()
        before = made(images())
        clone = copy.deepcopy(made)
        with torch.no_grad():
            for p in clone.parameters():
                p.zero_()
        assert torch.equal(made(images()), before)
