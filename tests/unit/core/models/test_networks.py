"""Architectures agree with published parameter counts and with explicit computations from their weights."""

import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.config import load_config
from ensdistill.data import DataSplits, Split
from ensdistill.errors import ConfigError, DataError
from ensdistill.models import Convnet, CustomModel, Model, ResNet, Torchvision, WideResNet, build
from ensdistill.models.fine_tuning import prepare_training
from ensdistill.models.layers import Conv2d, Linear
from ensdistill.models.normalization import Normalize
from tests.unit.core.core_stand_ins import numbered_split

GRAY, RGB = (1, 8, 8), (3, 32, 32)
SMALL = [Convnet(width=4), ResNet(depth=8, width=4), WideResNet(depth=10, width=1)]
needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")


def on_meta(model: Model, shape: tuple[int, int, int] = RGB, classes: int = 10) -> nn.Module:
    """Returns the network without allocating memory for its weights, to count parameters and check shapes."""
    with torch.device("meta"):
        return model(shape, classes)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def side_after(network: nn.Module, layer: nn.Module, shape: tuple[int, int, int] = RGB) -> int:
    """Returns the side length of the output of this layer."""
    seen: list[int] = []
    handle = layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.shape[-1]))
    network.eval()(torch.zeros(1, *shape, device=next(network.parameters()).device))
    handle.remove()
    return seen[0]


def randomize(network: nn.Module) -> nn.Module:
    """Sets double precision, evaluation mode, and random parameters and statistics of BatchNorm."""
    generator = torch.Generator().manual_seed(0)
    for module in network.double().eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.2, 1, generator=generator)
    return network


def images(shape: tuple[int, int, int], count: int = 2) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# --- rules for every network ---


@pytest.mark.parametrize("shape", [GRAY, RGB, (2, 9, 13)], ids=str)
@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.kind)
def test_networks_map_images_to_logits_and_every_weight_has_a_gradient(
    model: Model, shape: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    network = model(shape, 7)
    logits = network(images(shape, 5).float())
    assert logits.shape == (5, 7)
    F.cross_entropy(logits, torch.arange(5)).backward()
    for name, p in network.named_parameters():
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.kind)
def test_the_same_seed_gives_the_same_weights_and_another_seed_gives_different_weights(model: Model) -> None:
    train = numbered_split(20, 4)
    data = DataSplits(Split(train.images.repeat(1, 1, 4, 2), train.labels), train, train, tuple("abcd"), "made up")
    first, again, other = (build(model, data, seed) for seed in (3, 3, 4))
    assert isinstance(first[0], Normalize)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    drawn = [name for name, p in first.named_parameters() if p.dim() > 1]
    assert all(not torch.equal(first.state_dict()[name], other.state_dict()[name]) for name in drawn)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.width=4"], Convnet(width=4)),
        (["model.kind=resnet"], ResNet()),
        (["model.kind=wide_resnet", "model.width=1", "model.depth=10"], WideResNet(width=1, depth=10)),
        (["model.kind=torchvision", "model.name=vgg11"], Torchvision(name="vgg11")),
        (
            ["model.kind=custom", "model.path=a.b:C", "model.arguments.d=[1, {e: 2.5}]"],
            CustomModel(path="a.b:C", arguments={"d": [1, {"e": 2.5}]}),
        ),
    ],
)
def test_every_architecture_can_be_selected_by_overrides(overrides: list[str], expected: Model) -> None:
    assert load_config("kd", overrides).model == expected


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["model.kind=resnet", "model.depth=21"], "model.depth: 21 is not of the form 6n+2; use 20 or 26"),
        (["teachers.model.kind=wide_resnet", "teachers.model.depth=30"], "30 is not of the form 6n+4; use 28 or 34"),
        (["model.kind=resnet", "model.depth=2"], "model.depth: must be greater than or equal to 8, not 2"),
        (["model.kind=resnet", "model.shortcut=projektion"], "did you mean projection?"),
        (["model.kind=wide_resnet", "model.width=0"], "model.width: must be greater than or equal to 1, not 0"),
        (["model.kind=custom"], "model.path: must be given"),
        (["model.kind=custom", "model.path=a:B", "model.arguments={c: .nan}"], "must be a finite number, not nan"),
    ],
)
def test_the_error_for_settings_that_cannot_build_a_network_suggests_a_fix(overrides: list[str], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("kd", overrides)
    (line,) = [str(issue) for issue in caught.value.issues]
    assert fault in line


# --- layers ---


@pytest.mark.parametrize("layer", [Conv2d(64, 200, 3), Linear(576, 200)], ids=lambda layer: type(layer).__name__)
def test_layers_are_reset_to_kaiming_normal_weights_and_zero_biases(layer: nn.Conv2d | nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.fill_(7)
        layer.bias.fill_(7)
    torch.manual_seed(0)
    layer.reset_parameters()
    assert layer.weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.01)  # 576 inputs per neuron
    assert layer.weight.abs().max() > 3.5 * (2 / 576) ** 0.5  # a normal and not a uniform distribution
    assert layer.bias.abs().max() == 0


def test_layers_use_the_forward_methods_of_torch() -> None:
    assert Conv2d.forward is nn.Conv2d.forward
    assert Linear.forward is nn.Linear.forward


# --- resnet ---


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_resnet_has_the_number_of_parameters_given_in_table_6_of_the_paper(depth: int, count: int) -> None:
    assert parameters(on_meta(ResNet(depth=depth))) == count


@pytest.mark.parametrize(("depth", "width", "channels", "classes"), [(20, 16, 3, 10), (14, 5, 1, 3)])
@pytest.mark.parametrize("shortcut", ["identity", "projection"])
def test_resnet_has_the_number_of_parameters_given_by_the_formula(
    depth: int, width: int, channels: int, classes: int, shortcut: str
) -> None:
    expected = 9 * channels * width + 2 * width + 4 * width * classes + classes
    inputs = width
    for outputs in (width, 2 * width, 4 * width):
        blocks = (depth - 2) // 6
        expected += 9 * outputs * (inputs + (2 * blocks - 1) * outputs) + 2 * blocks * 2 * outputs
        expected += inputs * outputs + 2 * outputs if shortcut == "projection" and inputs != outputs else 0
        inputs = outputs
    network = on_meta(ResNet(depth=depth, width=width, shortcut=shortcut), (channels, 32, 32), classes)
    assert parameters(network) == expected


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    mean, variance, gain, bias = (weights[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    return ((x.movedim(1, -1) - mean) / (variance + 1e-5).sqrt() * gain + bias).movedim(-1, 1)


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
@pytest.mark.parametrize("shape", [GRAY, (3, 9, 6)], ids=str)
def test_resnet_equals_an_explicit_computation_from_its_weights(shortcut: str, shape: tuple[int, int, int]) -> None:
    network = randomize(ResNet(depth=14, width=4, shortcut=shortcut)(shape, 5))
    w, x = network.state_dict(), images(shape)
    y = norm(F.conv2d(x, w["conv.weight"], padding=1), w, "norm").relu()
    for stage in (1, 2, 3):
        for block in (0, 1):
            name, stride = f"stage{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            z = F.conv2d(y, w[f"{name}.residual.conv1.weight"], padding=1, stride=stride)
            z = norm(z, w, f"{name}.residual.norm1").relu()
            z = norm(F.conv2d(z, w[f"{name}.residual.conv2.weight"], padding=1), w, f"{name}.residual.norm2")
            if stride == 2 and shortcut == "identity":
                y = torch.cat([y[..., ::2, ::2], torch.zeros_like(y[..., ::2, ::2])], 1)  # as many additional channels
            elif stride == 2:
                y = norm(F.conv2d(y, w[f"{name}.shortcut.conv.weight"], stride=2), w, f"{name}.shortcut.norm")
            y = (y + z).relu()
    assert_close(network(x), y.mean((2, 3)) @ w["classifier.weight"].T + w["classifier.bias"])


# --- wide_resnet ---


@pytest.mark.parametrize(
    ("depth", "width", "classes", "count"),
    [
        (28, 10, 10, 36_479_194),  # 36.5M in table 4 of the paper
        (28, 4, 100, 5_872_180),  # 5.9M
        (40, 2, 10, 2_243_546),  # 2.2M in table 2
        (16, 10, 10, 17_116_634),  # 17.1M
    ],
)
def test_wide_resnet_has_the_number_of_parameters_given_in_its_paper(
    depth: int, width: int, classes: int, count: int
) -> None:
    assert parameters(on_meta(WideResNet(depth=depth, width=width), RGB, classes)) == count


@pytest.mark.parametrize(("width", "shape"), [(1, GRAY), (2, (3, 9, 6))], ids=str)
def test_wide_resnet_equals_an_explicit_computation_from_its_weights(width: int, shape: tuple[int, int, int]) -> None:
    network = randomize(WideResNet(depth=16, width=width)(shape, 5))
    w, x = network.state_dict(), images(shape)
    y = F.conv2d(x, w["conv.weight"], padding=1)  # no BatchNorm, ReLU or pooling
    for stage in (1, 2, 3):
        for block in (0, 1):
            name, stride = f"stage{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            z = norm(y, w, f"{name}.residual.norm1").relu()
            z = F.conv2d(z, w[f"{name}.residual.conv1.weight"], padding=1, stride=stride)
            z = F.conv2d(norm(z, w, f"{name}.residual.norm2").relu(), w[f"{name}.residual.conv2.weight"], padding=1)
            if y.shape != z.shape:
                y = F.conv2d(y, w[f"{name}.shortcut.weight"], stride=stride)  # of the original input
            y = y + z
    features = norm(y, w, "norm").relu().mean((2, 3))
    assert_close(network(x), features @ w["classifier.weight"].T + w["classifier.bias"])
    assert {name for name in w if name.endswith("bias") and "norm" not in name} == {"classifier.bias"}


@pytest.mark.parametrize("model", [ResNet(depth=14), WideResNet(depth=16)], ids=lambda model: model.kind)
def test_a_residual_network_is_divided_into_blocks_and_two_of_them_halve_the_resolution(model: Model) -> None:
    units = list(_units(on_meta(model)))
    x, sides = torch.zeros(2, *RGB, device="meta"), []
    for unit in units:
        x = unit(x)
        sides += [x.shape[-1]] if x.dim() == 4 else []
    assert x.shape == (2, 10)
    blocks = [n for n, unit in enumerate(units) if type(unit).__name__.endswith("Block")]
    assert [sides[n] for n in blocks] == [32, 32, 16, 16, 8, 8]
    assert (sides[0], sides[-2:]) == (32, [8, 1])


def _units(network: nn.Module) -> Iterator[nn.Module]:
    for child in network.children():
        yield from _units(child) if isinstance(child, nn.Sequential) else [child]


# --- torchvision ---


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "stem", "side"),
    [
        ("resnet18", "small", 4),
        ("resnet18", "original", 1),
        ("mobilenet_v3_small", "small", 2),
        ("mobilenet_v3_small", "original", 1),
    ],
)
def test_the_small_stem_preserves_the_resolution_but_the_original_stem_reduces_it(
    name: str, stem: str, side: int
) -> None:
    network = on_meta(Torchvision(name=name, stem=stem))
    last = network.layer4 if name == "resnet18" else network.features
    assert side_after(network, last) == side


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "maxpool"),
        ("densenet121", "features.pool0"),
        ("squeezenet1_1", "features.2"),
        ("shufflenet_v2_x0_5", "maxpool"),
        ("googlenet", "maxpool1"),
        ("efficientnet_b0", "features.0"),
        ("convnext_tiny", "features.0"),
        ("swin_t", "features.0.0"),  # only the convolution, because channels come last after it
        ("regnet_y_400mf", "stem"),
    ],
)
def test_the_small_stem_of_every_family_of_networks_keeps_the_image_size(name: str, layer: str) -> None:
    model = Torchvision(name=name)
    network = model(RGB, 10) if "regnet" in name else on_meta(model)  # RegNets compute their widths with tensors
    assert side_after(network, network.get_submodule(layer)) == 32


@needs_torchvision
def test_resnet18_with_the_small_stem_is_the_network_commonly_used_for_cifar() -> None:
    network = Torchvision()(RGB, 10)
    assert parameters(network) == 11_173_962
    assert network.training
    F.cross_entropy(network(images(RGB).float()), torch.tensor([0, 1])).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@needs_torchvision
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121", "googlenet", "vit_b_16"])
def test_with_the_original_stem_the_network_equals_the_published_network(name: str) -> None:
    from torchvision import models

    published = models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert parameters(on_meta(Torchvision(name=name, stem="original"), (3, 224, 224), 1000)) == published


@needs_torchvision
@pytest.mark.parametrize("stem", ["small", "original"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vgg11", "vit_b_16"])
def test_the_first_convolution_has_as_many_input_channels_as_the_images(name: str, stem: str) -> None:
    network = on_meta(Torchvision(name=name, stem=stem), (5, 32, 32))
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert first.weight.shape[1] == 5


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "stem", "side", "tokens"),
    [
        ("vit_b_16", "small", 32, 8**2 + 1),  # patches of 4x4
        ("vit_b_16", "small", 8, 8**2 + 1),
        ("vit_b_16", "small", 28, 14**2 + 1),  # 3x3 does not divide 28x28
        ("vit_b_16", "small", 224, 14**2 + 1),  # not larger than published
        ("vit_b_32", "small", 224, 8**2 + 1),
        ("vit_b_16", "original", 32, 2**2 + 1),
    ],
)
def test_a_vision_transformer_divides_small_images_into_eight_patches_per_side(
    name: str, stem: str, side: int, tokens: int
) -> None:
    network = on_meta(Torchvision(name=name, stem=stem), (3, side, side))
    assert network.encoder.pos_embedding.shape == (1, tokens, 768)


@needs_torchvision
def test_maxvit_is_built_for_the_image_size() -> None:
    network = on_meta(Torchvision(name="maxvit_t"), (3, 112, 112))
    assert side_after(network, network.stem, (3, 112, 112)) == 112


@needs_torchvision
@pytest.mark.parametrize(
    ("model", "shape", "begins", "holds"),
    [
        (Torchvision(name="resnet19"), RGB, "model.name: torchvision has no", "did you mean resnet1"),
        (Torchvision(name="fcn_resnet50"), RGB, "model.name: torchvision has no", "'fcn_resnet50'"),
        (Torchvision(name="zzz"), RGB, "model.name: torchvision has no", "available: alexnet"),
        (Torchvision(name="inception_v3"), RGB, "model.name: inception_v3 on images of 3x32x32", "larger images"),
        (Torchvision(name="alexnet", stem="original"), RGB, "model.name: alexnet on", "use model.stem=small"),
        (Torchvision(name="maxvit_t"), RGB, "model.name: maxvit_t on images", "not divisible by partition size"),
        (
            Torchvision(name="vit_b_16"),
            (3, 32, 24),
            "model.name: vit_b_16 requires square images, not 32x24",
            "another",
        ),
        (Torchvision(name="vit_b_16", stem="original"), (3, 28, 28), "model.name: vit_b_16 on", "model.stem=small"),
    ],
)
def test_the_error_for_a_network_incompatible_with_the_images_suggests_a_fix(
    model: Torchvision, shape: tuple[int, int, int], begins: str, holds: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        on_meta(model, shape)
    (line,) = [str(issue) for issue in caught.value.issues]
    assert line.startswith(begins)
    assert holds in line
    assert "\n" not in line


def test_a_torchvision_that_cannot_be_imported_causes_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ConfigError, match="install the torchvision release for torch"):
        Torchvision()(RGB, 10)


# --- published weights ---

SHUFFLENET = "shufflenet_v2_x0_5"
SHUFFLENET_FILE = "shufflenetv2_x0.5-f707e7126e.pth"
SHUFFLENET_URL = f"https://download.pytorch.org/models/{SHUFFLENET_FILE}"


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch.hub stores downloaded files."""
    pytest.importorskip("torchvision")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def started(model: Torchvision, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Returns the network with which training starts."""
    network = nn.Sequential(nn.Identity(), model(shape, classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about layers that start from random weights
        prepare_training(network, model, classes)
    return network[1]


def as_published(name: str) -> dict[str, Tensor]:
    from torchvision import models

    torch.manual_seed(5)
    return models.get_model(name, weights=None).state_dict()


@pytest.mark.parametrize(
    ("shape", "classes", "left"),
    [
        (RGB, 10, ["fc.weight", "fc.bias"]),
        (GRAY, 10, ["fc.weight", "fc.bias", "conv1.0.weight"]),
        (RGB, 1000, []),
    ],
    ids=str,
)
def test_published_weights_are_copied_into_all_layers_of_unchanged_shape(
    checkpoints: Path, shape: tuple[int, int, int], classes: int, left: list[str]
) -> None:
    published = as_published(SHUFFLENET)
    torch.save(published, checkpoints / SHUFFLENET_FILE)
    filled = started(Torchvision(name=SHUFFLENET, pretrained="DEFAULT"), shape, classes).state_dict()
    assert filled.keys() == published.keys()
    assert {name for name in filled if not torch.equal(filled[name], published[name])} == set(left)


def test_a_published_tensor_that_is_not_finite_is_not_loaded(checkpoints: Path) -> None:
    published = as_published(SHUFFLENET)
    published["conv5.0.weight"].fill_(float("nan"))
    torch.save(published, checkpoints / SHUFFLENET_FILE)
    network = started(Torchvision(name=SHUFFLENET, pretrained="IMAGENET1K_V1"), RGB, 10)
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_old_parameter_names_of_published_densenets_are_converted(checkpoints: Path) -> None:
    published = as_published("densenet121")
    old = {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): t for name, t in published.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, checkpoints / "densenet121-a639ec97.pth")
    filled = started(Torchvision(name="densenet121", pretrained="DEFAULT"), RGB, 10).state_dict()
    different = {name for name, tensor in filled.items() if not torch.equal(tensor, published[name])}
    assert different == {"features.conv0.weight", "classifier.weight", "classifier.bias"}


def test_the_error_for_an_unknown_name_of_published_weights_suggests_the_closest_name() -> None:
    with pytest.raises(ConfigError, match=r"model.pretrained: 'IMAGENET1K_V9' is not one of .*mean IMAGENET1K_V1\?"):
        Torchvision(pretrained="IMAGENET1K_V9").published()


def test_missing_published_weights_are_reported_with_path_and_download_source(checkpoints: Path) -> None:
    with pytest.raises(DataError) as caught:
        started(Torchvision(name=SHUFFLENET, pretrained="DEFAULT"), RGB, 10)
    assert str(checkpoints / SHUFFLENET_FILE) in str(caught.value)
    assert SHUFFLENET_URL in str(caught.value)
    assert list(checkpoints.iterdir()) == []


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["nonsense", "another network", "a tensor", "a part", "a trap"])
def test_a_published_weights_file_with_unexpected_content_is_refused(
    checkpoints: Path, tmp_path: Path, content: str
) -> None:
    file = checkpoints / SHUFFLENET_FILE
    if content == "nonsense":
        file.write_bytes(b"<html>not found</html>")
    elif content == "a part":
        torch.save({name: t for name, t in as_published(SHUFFLENET).items() if name != "fc.bias"}, file)
    else:
        other = {"another network": nn.Linear(2, 2).state_dict(), "a tensor": torch.ones(2)}
        torch.save(other.get(content, {"fc.bias": Trap(tmp_path / "sprung")}), file)
    with pytest.raises(DataError, match=f"{SHUFFLENET_FILE}: .*download {SHUFFLENET_URL} again"):
        started(Torchvision(name=SHUFFLENET, pretrained="DEFAULT"), RGB, 10)
    assert not (tmp_path / "sprung").exists()


# --- custom networks ---

MINE = """
from torch import nn

pi = 3.14

def head(channels, classes):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]

class Mine(nn.Sequential):
    def __init__(self, num_classes, in_channels, width=4, act="relu"):
        super().__init__(nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width), *head(width, num_classes))

def by_shape(classes, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

def by_anything(**options):
    assert options == {"num_classes": 10, "depth": 3}
    return nn.Sequential(*head(3, options["num_classes"]))

def by_both(num_classes, classes=7):
    return nn.Sequential(*head(3, num_classes)) if classes == 7 else None

def without_classes(width): ...
def no_network(num_classes): return [num_classes]
def failing(num_classes): raise ValueError("two" + chr(10) + "lines")
def features(num_classes): return nn.Identity()
def pairs(num_classes): return Pairs()
class Pairs(nn.Module):
    def forward(self, x): return x, x
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts user-defined modules on the import path."""
    (tmp_path / "mine_of_user.py").write_text(MINE)
    (tmp_path / "broken_of_user.py").write_text("this is no Python")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine_of_user", None)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("Mine", {}, 27 * 4 + 4 + 8 + 50),
        ("Mine", {"width": 2}, 27 * 2 + 2 + 4 + 30),
        ("by_shape", {}, 3 * 32 * 32 * 10 + 10),
        ("by_anything", {"depth": 3}, 40),
        ("by_both", {}, 40),
    ],
)
def test_a_custom_model_receives_its_arguments_and_the_data_properties_named_in_its_signature(
    name: str, arguments: dict[str, int], count: int
) -> None:
    network = CustomModel(path=f"mine_of_user:{name}", arguments=arguments)(RGB, 10)
    assert parameters(network) == count
    assert network.training


@pytest.mark.usefixtures("mine")
def test_probing_a_network_does_not_change_its_statistics() -> None:
    network = CustomModel(path="mine_of_user:Mine")(RGB, 10)
    assert int(network[1].num_batches_tracked) == 0


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("path", "arguments", "begins", "holds"),
    [
        ("nowhere_of_user:Net", {}, "model.path: nowhere_of_user:Net cannot be imported", "PYTHONPATH"),
        ("broken_of_user:Net", {}, "model.path: broken_of_user:Net cannot be imported", "SyntaxError"),
        ("mine_of_user:Yours", {}, "model.path: mine_of_user:Yours cannot be imported", "package.module:Name"),
        ("no path", {}, "model.path: no path cannot be imported", "package.module:Name"),
        ("mine_of_user:pi", {}, "model.path: must be a class or a function, but", "mine_of_user:pi is a float"),
        ("mine_of_user:without_classes", {"width": 1}, "model.path: mine", "(width) has no parameter num_classes"),
        ("mine_of_user:Mine", {"widht": 1}, "model.arguments: ", "'widht'; the signature of mine_of_user:Mine is (num"),
        ("mine_of_user:no_network", {}, "model.path: mine", "returns a list, not a torch.nn.Module"),
        ("mine_of_user:failing", {}, "model.path: mine", "fails (ValueError: two lines)"),
        ("mine_of_user:features", {}, "model.path: mine", "returns (2, 3, 32, 32) for two images, not logits (2, 10)"),
        ("mine_of_user:pairs", {}, "model.path: mine", "returns a tuple for two images"),
        ("mine_of_user:Mine", {"num_classes": 9}, "model.path: mine", "returns (2, 9) for two images"),
        ("mine_of_user:Mine", {"in_channels": 1}, "model.path: mine", "fails (RuntimeError"),
    ],
)
def test_the_error_for_an_import_that_returns_no_network_suggests_a_fix(
    path: str, arguments: dict[str, int], begins: str, holds: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        CustomModel(path=path, arguments=arguments)(RGB, 10)
    (line,) = [str(issue) for issue in caught.value.issues]
    assert line.startswith(begins)
    assert holds in line
    assert "\n" not in line
