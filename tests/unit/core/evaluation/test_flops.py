"""Multiplications and additions are counted as torch counts them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ensdistill.evaluation.flops import FlopCounter


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.heads(x, x, x)
        z = scaled_dot_product_attention(y, y, x)
        return torch.einsum("bnc,bmc->bnm", self.encoder(z), z)


@pytest.mark.parametrize(
    ("network", "images"),
    [
        (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 2, 3)), (2, 4, 5, 5)),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 7), nn.ReLU(), nn.Linear(7, 3)), (2, 4, 5, 5)),
        (Attention(), (2, 5, 8)),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_operations_are_counted_as_torch_counts_them(
    network: nn.Module, images: tuple[int, ...], training: bool
) -> None:
    network.train(training)
    with torch.no_grad(), FlopCounter() as ours:
        network(torch.zeros(images))
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        network(torch.zeros(images))
    assert ours.flops == theirs.get_total_flops() > 0


def test_torch_does_not_import_dynamo_to_count_operations() -> None:
    assert not hasattr(FlopCounter.__torch_dispatch__, "__wrapped__")
    assert hasattr(_Wrapped.__torch_dispatch__, "__wrapped__")


class _Wrapped(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode whose first operation imports TorchDynamo."""

    def __torch_dispatch__(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing."""
