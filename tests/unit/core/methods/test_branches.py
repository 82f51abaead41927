"""Students with one stem and K branches agree with plain networks assembled by hand."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.models
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError
from ensdistill.methods.members import combine_members
from ensdistill.methods.students.base import Student
from ensdistill.methods.students.branches import Branches
from ensdistill.methods.students.branches_student import Branched
from ensdistill.models import Convnet, ResNet, WideResNet, build
from ensdistill.training.new_student import new_student
from tests.unit.core.core_stand_ins import tiny_config

HYDRA = Branches(subnetworks=3, branch_at="classifier")


def convnet(blocks: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return Convnet(width=4, blocks=blocks)((1, 8, 8), 3).double()


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def branched(student: nn.Module) -> list[str]:
    """Returns the names of the modules that exist once per branch."""
    return [name.removeprefix("network.") for name, m in student.named_modules() if isinstance(m, Branched)]


def spread(student: nn.Module) -> Any:
    """Returns the student with random BatchNorm parameters and statistics."""
    generator = torch.Generator().manual_seed(2)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return student


def alone(student: nn.Module, branch: int) -> nn.Module:
    """Returns the plain network of the stem and one branch."""
    network = copy.deepcopy(student.network)
    for name, module in list(network.named_modules()):
        if isinstance(module, Branched):
            network.set_submodule(name, module.parts[branch])
    return network


# --- shared and separate modules ---


@pytest.mark.parametrize("settings", [Branches(subnetworks=3), HYDRA])
@pytest.mark.parametrize("training", [False, True])
def test_each_branch_equals_a_plain_network_built_from_the_stem_and_the_layers_of_the_branch(
    settings: Branches, training: bool
) -> None:
    student = spread(settings(convnet())).train(training)
    plain = [alone(student, k).train(training) for k in range(3)]
    logits = student(images())
    for k in range(3):
        assert_close(logits[k], plain[k](images()))


@pytest.mark.parametrize("settings", [Branches(subnetworks=3), HYDRA])
def test_the_first_branch_equals_the_original_network(settings: Branches) -> None:
    plain = spread(convnet()).eval()
    student = settings(copy.deepcopy(plain)).eval()
    assert_close(student(images())[0], plain(images()))


@pytest.mark.parametrize("branch_at", ["last_stage", "classifier"])
@pytest.mark.parametrize("training", [False, True])
def test_a_single_branch_equals_the_plain_network(branch_at: str, training: bool) -> None:
    plain = spread(convnet()).train(training)
    student = Branches(subnetworks=1, branch_at=branch_at)(copy.deepcopy(plain)).train(training)
    assert torch.equal(student(images())[0], plain(images()))
    assert torch.equal(student.merged().eval()(images()), plain.eval()(images()))


@pytest.mark.parametrize("subnetworks", [1, 2, 5])
@pytest.mark.parametrize(("branch_at", "in_the_stem"), [("last_stage", 1), ("classifier", 2)])
def test_the_stem_runs_once_for_any_number_of_branches(subnetworks: int, branch_at: str, in_the_stem: int) -> None:
    student = Branches(subnetworks=subnetworks, branch_at=branch_at)(convnet())
    convolutions = [m for m in student.modules() if isinstance(m, nn.Conv2d)]
    batches: list[tuple[nn.Module, int]] = []
    for module in convolutions:
        module.register_forward_pre_hook(lambda m, inputs: batches.append((m, len(inputs[0]))))
    student(images())
    assert len(convolutions) == in_the_stem + (2 - in_the_stem) * subnetworks
    assert Counter(batches) == {(module, len(images())): 1 for module in convolutions}


def test_only_the_selected_branches_run() -> None:
    student = Branches(subnetworks=3)(convnet())
    calls: Counter[nn.Module] = Counter()
    parts = next(m for m in student.modules() if isinstance(m, Branched)).parts
    for part in parts:
        part.register_forward_pre_hook(lambda m, _: calls.update([m]))
    student(images(), [2, 0])
    assert [calls[part] for part in parts] == [1, 0, 1]


@pytest.mark.parametrize("members", [[0], [2], [1, 0], [2, 2], (0, 2), range(2), range(2, -1, -1)])
def test_logits_of_selected_branches_equal_their_slices_of_all_logits(members: Any) -> None:
    student = spread(Branches(subnetworks=3)(convnet())).eval()
    assert_close(student(images(), members), student(images())[list(members)])


def test_the_stem_is_stored_once_and_the_last_stage_once_per_branch() -> None:
    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    plain = convnet()
    stem, rest = size(plain[:4]), size(plain[4:])
    assert size(Branches(subnetworks=5)(convnet())) == stem + 5 * rest
    assert size(Branches(subnetworks=5, branch_at="classifier")(convnet())) == size(plain[:-1]) + 5 * size(plain[-1])


def test_branches_start_from_different_weights() -> None:
    student = Branches(subnetworks=3)(convnet())
    for part in (m for m in student.modules() if isinstance(m, Branched)):
        weights = [p.weight for p in part.parts if not isinstance(p, nn.BatchNorm2d)]
        assert all(not torch.equal(weights[0], other) for other in weights[1:])
        assert len({id(p) for p in part.parameters()}) == 3 * len(list(part.parts[0].parameters()))


def test_batchnorm_statistics_of_a_branch_are_computed_from_its_own_features() -> None:
    student = Branches(subnetworks=2)(convnet()).train()
    convolution, norm = (
        m for m in student.modules() if isinstance(m, Branched) and not isinstance(m.parts[0], nn.Linear)
    )
    stem = student.network[:4]
    with torch.no_grad():
        features = copy.deepcopy(stem)(images())
    student(images())
    for k in range(2):
        expected = 0.1 * convolution.parts[k](features).mean((0, 2, 3))
        assert_close(norm.parts[k].running_mean, expected)
        assert norm.parts[k].num_batches_tracked == 1
    assert not torch.equal(norm.parts[0].running_mean, norm.parts[1].running_mean)


def test_the_gradient_of_the_stem_is_the_sum_over_branches() -> None:
    student = Branches(subnetworks=3)(convnet()).eval()
    student(images()).square().sum().backward()
    expected = torch.zeros_like(student.network[0].weight)
    for k in range(3):
        plain = alone(student, k)
        plain.zero_grad()
        plain(images()).square().sum().backward()
        expected += plain[0].weight.grad
    assert_close(student.network[0].weight.grad, expected)


def test_the_same_seed_gives_the_same_branches(digits: DataSplits) -> None:
    def weights(seed: int) -> Tensor:
        student = new_student(tiny_config("student.kind=branches", f"seed={seed}"), digits)
        return torch.cat([p.detach().flatten() for p in student.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    "network",
    [
        lambda: WideResNet(depth=16, width=1)((3, 8, 8), 4),
        lambda: torchvision.models.resnet18(num_classes=4),
        lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
    ],
    ids=["wide_resnet", "resnet18", "mobilenet"],
)
def test_new_branches_are_initialized_with_the_scale_of_the_first_branch(network: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    student = Branches(subnetworks=2)(network())
    for name, part in ((n, m) for n, m in student.named_modules() if isinstance(m, Branched)):
        for (parameter, first), second in zip(
            part.parts[0].named_parameters(), part.parts[1].parameters(), strict=True
        ):
            if first.numel() >= 500:
                assert second.std().item() == pytest.approx(first.std().item(), rel=0.3), f"{name}.{parameter}"


# --- start of the branches ---


LAYOUTS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "resnet18": (torchvision.models.resnet18, ["layer4.0", "layer4.1", "fc"]),
    "resnet50": (torchvision.models.resnet50, ["layer4.0", "layer4.1", "layer4.2", "fc"]),
    "mobilenet_v3_small": (
        torchvision.models.mobilenet_v3_small,
        [*(f"features.{n}" for n in (9, 10, 11)), "features.12.0", "features.12.1", "classifier.0", "classifier.3"],
    ),
    "densenet121": (torchvision.models.densenet121, ["features.denseblock4", "features.norm5", "classifier"]),
    "vgg11": (torchvision.models.vgg11, ["classifier.0", "classifier.3", "classifier.6"]),
    "convnet": (lambda: Convnet(width=2, blocks=3)((1, 8, 8), 3), ["8", "9", "13"]),
    "resnet20": (lambda: ResNet()((3, 8, 8), 4), ["stage3.0", "stage3.1", "stage3.2", "classifier"]),
    "wide_resnet": (
        lambda: WideResNet(depth=16, width=1)((3, 8, 8), 4),
        ["stage3.0", "stage3.1", "norm", "classifier"],
    ),
    "wide_resnet10": (lambda: WideResNet(depth=10, width=1)((3, 8, 8), 4), ["stage3.0", "norm", "classifier"]),
    "resnet8": (lambda: ResNet(depth=8)((3, 8, 8), 4), ["stage3.0", "classifier"]),
    "resnet8_projection": (
        lambda: ResNet(depth=8, shortcut="projection")((3, 8, 8), 4),
        ["stage3.0", "classifier"],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_last_stage_begins_where_the_resolution_is_reduced_for_the_last_time(name: str) -> None:
    network, expected = LAYOUTS[name]
    with torch.device("meta"):
        student = Branches(subnetworks=2)(network())
    assert branched(student) == expected


@pytest.mark.parametrize("name", LAYOUTS)
def test_hydra_branches_share_all_layers_except_the_classifier(name: str) -> None:
    network, (*_, last) = LAYOUTS[name]
    with torch.device("meta"):
        student = HYDRA(network())
    assert branched(student) == [last]


@pytest.mark.parametrize("model", [WideResNet(depth=10, width=1), ResNet(depth=8, width=4), ResNet(depth=14, width=2)])
def test_no_branch_point_separates_a_residual_block_from_its_shortcut(model: Any, digits: DataSplits) -> None:
    plain = build(model, digits, 0).eval()
    student = Branches(subnetworks=2)(copy.deepcopy(plain)).eval()
    x = digits.train[slice(0, 3)][0]
    assert_close(student(x)[0], plain(x))


def test_image_normalization_is_part_of_the_stem(digits: DataSplits) -> None:
    student = Branches(subnetworks=2)(build(Convnet(width=2, blocks=2), digits, 0))
    assert branched(student) == ["1.4", "1.5", "1.9"]
    assert not isinstance(student.network[0], Branched)


def test_torchvision_resnet18_runs_its_stem_once() -> None:
    plain = torchvision.models.resnet18(num_classes=4).eval()
    student = Branches(subnetworks=3)(copy.deepcopy(plain)).eval()
    calls: Counter[str] = Counter()
    for name in ("conv1", "layer1", "layer2", "layer3"):
        student.network.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
    x = torch.rand(2, 3, 32, 32)
    logits = student(x)
    assert set(calls.values()) == {1}
    assert len(calls) == 4
    assert logits.shape == (3, 2, 4)
    assert_close(logits[0], plain(x), atol=1e-5, rtol=1e-4)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def vision_transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3
    )


@pytest.mark.parametrize("network", [lambda: convnet(1), vision_transformer], ids=["convnet", "vit"])
def test_a_network_whose_last_stage_is_unknown_is_rejected_and_the_error_suggests_a_fix(
    network: Callable[[], nn.Module],
) -> None:
    with pytest.raises(ConfigError, match=r"student\.branch_at: .*use classifier"):
        Branches()(network())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8)])
def test_the_suggested_branch_point_works(shape: tuple[int, int, int]) -> None:
    network = convnet(1).float() if shape[0] == 1 else vision_transformer()
    assert HYDRA(network)(torch.rand(2, *shape)).shape == (3, 2, 3)


# --- other networks ---


class Listed(nn.Module):
    """A network whose stages are in a list over which `forward` iterates."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.stages = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)])
        self.classifier = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x.relu())
        return self.classifier(x.mean((2, 3)))


class Activated(nn.Module):
    """A layer that begins with an in-place activation of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.ELU(inplace=True)
        self.convolution = nn.Conv2d(4, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.activation(x))


def in_place() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3, padding=1), Activated(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(*layers)


def stride_in_a_list() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3), nn.AvgPool2d([2, 2]), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 3))


@pytest.mark.parametrize("network", [Listed, in_place, stride_in_a_list])
def test_each_branch_of_any_network_equals_a_plain_network(network: Callable[[], nn.Module]) -> None:
    student = Branches(subnetworks=3)(network().double()).eval()
    plain = [alone(student, k) for k in range(3)]
    logits = student(images())
    for k in range(3):
        assert_close(logits[k], plain[k](images()))
    logits.sum().backward()


# --- combination of branch outputs ---

THREE = [[[2.0, 1, 0]], [[0.0, 1, 2]], [[1.0, 1, -2]]]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean_of_logits", [1.0, 1.0, 0.0]),
        ("sum_of_logits", [3.0, 3.0, 0.0]),
    ],
)
def test_combined_logits_are_the_mean_or_sum_over_branches(how: str, expected: list[float]) -> None:
    assert_close(combine_members(torch.tensor(THREE), how)[0], torch.tensor(expected))
    assert_close(combine_members(torch.tensor(THREE), how, 4.0)[0], torch.tensor(expected) / 4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_combined_log_probabilities_are_the_log_of_the_mean_at_the_given_temperature(temperature: float) -> None:
    logits = torch.tensor(THREE)
    expected = sum((one / temperature).softmax(-1) for one in logits) / 3
    assert_close(combine_members(logits, "mean_of_probabilities", temperature).exp(), expected)


@pytest.mark.parametrize("merge", ["mean_of_logits", "sum_of_logits", "mean_of_probabilities"])
def test_the_merged_student_returns_the_combined_output_of_its_branches(merge: str) -> None:
    student: Student = spread(Branches(subnetworks=3, merge=merge)(convnet())).eval()
    logits = student(images())
    expected = {
        "mean_of_logits": logits.mean(0),
        "sum_of_logits": logits.sum(0),
        "mean_of_probabilities": logits.softmax(-1).mean(0).log(),
    }
    assert_close(student.merged()(images()), expected[merge])


class HeadFirst(nn.Module):
    """A network that registers its classifier before its body."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 5)
        self.body = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def test_a_network_that_registers_modules_out_of_execution_order_is_refused() -> None:
    student = Branches(subnetworks=2, branch_at="classifier")(HeadFirst())
    with pytest.raises(ConfigError, match="in which it registers them"):
        student(torch.rand(2, 1, 8, 8))
    with pytest.raises(ConfigError, match="in which it registers them"):
        student(torch.rand(2, 1, 8, 8))
