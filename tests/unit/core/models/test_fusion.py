"""Inference-optimized networks compute the same functions as the originals."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.models import ResNet, Torchvision, WideResNet
from ensdistill.models.fusion import inference_form


def trained(network: nn.Module) -> nn.Module:
    """Sets evaluation mode, and BatchNorm statistics and weights that differ from the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("model", "left"),
    [
        (ResNet(depth=8), 0),
        (ResNet(depth=8, shortcut="projection"), 0),
        (WideResNet(depth=10, width=1), 4),  # those before the first convolution of a block, and the last one
        (Torchvision(name="mobilenet_v3_small"), 0),
    ],
)
def test_folding_removes_batchnorms_after_convolutions_and_preserves_outputs_and_input_gradients(
    model: ResNet | WideResNet | Torchvision, left: int
) -> None:
    network = trained(model((3, 32, 32), 10)).double()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    before = copy.deepcopy(network.state_dict())
    folded = inference_form(network)
    assert_close(folded(images), network(images))
    weights = torch.linspace(-1, 1, 10).double()
    (mine,), (theirs,) = (torch.autograd.grad((f(images) * weights).sum(), images) for f in (folded, network))
    assert_close(mine, theirs)
    assert norms(folded) == left
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


class Odd(nn.Module):
    """A convolution used twice, one whose output is used twice, and a BatchNorm without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.seen = nn.Conv2d(3, 3, 3, padding=1)
        self.behind = nn.BatchNorm2d(3)
        self.last = nn.Conv2d(3, 3, 1)
        self.without = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.twice(self.twice(x)))
        y = self.seen(x)
        result: Tensor = self.without(self.last(y + self.behind(y)))
        return result


def test_batchnorms_that_cannot_be_folded_are_kept() -> None:
    network = Odd()
    network.norm.running_mean = torch.ones(3)
    network.behind.running_mean = torch.ones(3)
    network.eval()
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert_close(inference_form(network)(images), network(images))
    assert norms(inference_form(network)) == 3


class Wayward(nn.Module):
    """A network whose control flow depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y if y.sum() > 0 else -y


def test_a_network_with_data_dependent_control_flow_is_unchanged() -> None:
    network = Wayward().eval()
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    folded = inference_form(network)
    assert torch.equal(folded(images), network(images))
    assert norms(folded) == 1
