"""Training that starts from weights in a file, with frozen layers and a lower learning rate for the body."""

import copy
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ensdistill.config import Config, load_config
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError, DataError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models import Convnet, NetworkPiece, ResNet, Timm, Torchvision, build
from ensdistill.models.fine_tuning import prepare_training
from ensdistill.training.loop import Distiller, distill
from ensdistill.training.new_student import new_student
from ensdistill.training.teachers import teacher_hash
from tests.unit.core.core_stand_ins import tiny_config

MODEL = Convnet(width=4, blocks=2)
CLASSIFIER = ("9.weight", "9.bias")


def network_of(model: NetworkPiece, data: DataSplits, seed: int = 1) -> nn.Sequential:
    """Returns the network with which training starts; warnings are errors."""
    network = build(model, data, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_training(network, model, len(data.class_names))
    return network


@pytest.fixture(scope="module")
def trained(digits: DataSplits) -> nn.Sequential:
    """Returns a network of `MODEL` with statistics and weights that differ from every initialization."""
    network = build(MODEL, digits, seed=5)
    torch.manual_seed(0)
    for tensor in network[1].state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else tensor)
    network[0].mean.add_(0.1)
    return network


def differing(network: nn.Module, other: nn.Module) -> set[str]:
    pairs = zip(network.state_dict().items(), other.state_dict().values(), strict=True)
    return {name for (name, tensor), own in pairs if not torch.equal(tensor, own)}


# --- weights ---


@pytest.mark.parametrize("form", ["safetensors", "torch", "wrapped"])
def test_weights_in_a_file_replace_all_random_weights(
    form: str, trained: nn.Sequential, tmp_path: Path, digits: DataSplits
) -> None:
    path, state = tmp_path / "w", trained[1].state_dict()
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if form == "torch" else {"model": {f"module.{n}": t for n, t in state.items()}}, path)
    started = network_of(MODEL.model_copy(update={"weights": str(path)}), digits)
    assert differing(started, trained) == {"0.mean"}, "the normalization is that of the training images"


def test_a_weights_file_of_this_project_includes_the_normalization(
    trained: nn.Sequential, tmp_path: Path, digits: DataSplits
) -> None:
    save_file(trained.state_dict(), tmp_path / "student.safetensors")
    started = network_of(MODEL.model_copy(update={"weights": str(tmp_path / "student.safetensors")}), digits)
    assert differing(started, trained) == set()


@pytest.mark.parametrize("form", ["other classes", "no classifier", "student"])
def test_a_classifier_that_does_not_fit_keeps_random_weights_and_causes_a_warning(
    form: str, trained: nn.Sequential, tmp_path: Path, digits: DataSplits
) -> None:
    whole = form == "student"
    prefix = "1." if whole else ""
    state = copy.deepcopy((trained if whole else trained[1]).state_dict())
    for name in CLASSIFIER:
        tensor = state.pop(prefix + name)
        state |= {} if form == "no classifier" else {prefix + name: torch.cat([tensor, tensor])}
    torch.save(state, tmp_path / "w.pt")
    model = MODEL.model_copy(update={"weights": str(tmp_path / "w.pt")})
    network = build(model, digits, seed=1)
    random = copy.deepcopy(network)
    with pytest.warns(UserWarning, match=r"model.weights: the classifier \(9\) starts from random weights") as caught:
        prepare_training(network, model, 10)
    assert len(caught) == 1
    assert differing(network[1], trained[1]) == set(CLASSIFIER)
    assert all(torch.equal(network[1].state_dict()[name], random[1].state_dict()[name]) for name in CLASSIFIER)


def test_a_weights_file_of_a_different_network_is_refused_and_the_error_states_the_difference(
    trained: nn.Sequential, tmp_path: Path, digits: DataSplits
) -> None:
    torch.save(trained[1].state_dict(), tmp_path / "w.pt")
    wide = Convnet(width=8, blocks=2, weights=str(tmp_path / "w.pt"))
    with pytest.raises(DataError, match=r"model.weights: .*w.pt does not fit the network \(.*is 4x.* in the file"):
        network_of(wide, digits)
    with pytest.raises(DataError, match=r"nothing.pt: no such weights file \(model.weights\)"):
        network_of(Convnet(weights="nothing.pt"), digits)
    two = {"a": trained[1].state_dict(), "b": {n: t + 1 for n, t in trained[1].state_dict().items()}}
    torch.save(two, tmp_path / "two.pt")
    with pytest.raises(DataError, match="contains the weights of 2 networks that fit"):
        network_of(MODEL.model_copy(update={"weights": str(tmp_path / "two.pt")}), digits)


def test_weights_that_are_not_finite_are_refused(trained: nn.Sequential, tmp_path: Path, digits: DataSplits) -> None:
    torch.save(
        {
            name: tensor / 0 if tensor.is_floating_point() else tensor
            for name, tensor in trained[1].state_dict().items()
        },
        tmp_path / "w.pt",
    )
    with pytest.raises(DataError, match="not finite"):
        network_of(MODEL.model_copy(update={"weights": str(tmp_path / "w.pt")}), digits)


@pytest.mark.parametrize("student", ["single", "batch_ensemble", "branches"])
def test_students_of_every_kind_load_weights_from_a_file_only_if_they_will_be_trained(
    student: str, trained: nn.Sequential, tmp_path: Path, digits: DataSplits
) -> None:
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    config = tiny_config(f"student.kind={student}", f"model.weights={tmp_path / 'w.pt'}")
    started, plain = (new_student(config, digits, start=start).network[1][0] for start in (True, False))
    first = [getattr(layer, "layer", layer).weight for layer in (started, plain)]
    assert [torch.equal(weight, trained[1][0].weight) for weight in first] == [True, False]


def test_hashes_depend_on_the_content_of_the_file_and_not_on_its_path(tmp_path: Path, digits: DataSplits) -> None:
    one, same, other = (tmp_path / name for name in ("one.pt", "same.pt", "other.pt"))
    for path, content in ((one, b"1"), (same, b"1"), (other, b"2")):
        path.write_bytes(content)

    def hashes(path: Path) -> tuple[str, str]:
        config = load_config("kd", [f"model.weights={path}", f"teachers.model.weights={path}"])
        return config.hash, teacher_hash(config, 0, digits)

    assert hashes(one) == hashes(same)
    assert not set(hashes(one)) & set(hashes(other))
    assert hashes(one)[0] != load_config("kd").hash


def test_published_weights_and_a_weights_file_are_mutually_exclusive() -> None:
    with pytest.raises(ConfigError, match=r"model.pretrained: training cannot start from both published weights and"):
        load_config("kd", ["model={kind: torchvision, pretrained: DEFAULT, weights: a.pt}"])


def test_custom_mean_and_std_are_accepted_only_for_weights_without_a_normalization_layer(
    trained: nn.Sequential, tmp_path: Path, digits: DataSplits
) -> None:
    torch.save(trained[1].state_dict(), tmp_path / "theirs.pt")
    torch.save(trained.state_dict(), tmp_path / "ours.pt")
    given = {"mean": [0.25], "std": [0.5]}
    normalize = network_of(MODEL.model_copy(update={"weights": str(tmp_path / "theirs.pt"), **given}), digits)[0]
    assert (float(normalize.mean), float(normalize.std)) == (0.25, 0.5)
    with pytest.raises(ConfigError, match=r"ours.pt already contains mean and std"):
        network_of(MODEL.model_copy(update={"weights": str(tmp_path / "ours.pt"), **given}), digits)
    with pytest.raises(ConfigError, match=r"model: mean and std require one number for each of 1 channels"):
        network_of(MODEL.model_copy(update={"mean": [0.2]}), digits)


@pytest.mark.parametrize("name", ["weights", "freeze", "pretrained", "body_lr"])
def test_training_settings_are_refused_for_a_network_that_is_not_trained(name: str) -> None:
    value = {"freeze": "[a]", "body_lr": "0"}.get(name, "a")
    model = f"{{kind: torchvision, {name}: {value}}}"
    with pytest.raises(
        ConfigError, match=rf"checkpoints.0.model.{name}: applies only to networks that ensdistill trains"
    ):
        load_config("kd", [f"teachers.checkpoints=[{{path: a.pt, model: {model}}}]"])


# --- frozen layers ---


def frozen_of(network: nn.Module) -> list[str]:
    return [name for name, p in network.named_parameters() if not p.requires_grad]


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["0"], ["0.weight", "0.bias"]),
        (["*.bias"], ["0.bias", "1.bias", "4.bias", "5.bias", "9.bias"]),
        (["[01]", "9.weight"], ["0.weight", "0.bias", "1.weight", "1.bias", "9.weight"]),
    ],
)
def test_patterns_match_module_and_parameter_names(patterns: list[str], frozen: list[str], digits: DataSplits) -> None:
    network = network_of(Convnet(width=4, blocks=2, freeze=patterns), digits)[1]
    names = [name for name in frozen if name in dict(network.named_parameters())]
    assert frozen_of(network) == names != []


def test_patterns_that_match_nothing_or_freeze_everything_are_refused(digits: DataSplits) -> None:
    with pytest.raises(
        ConfigError, match=r"model.freeze: 'stage9' matches no part of the network \(its parts are conv"
    ):
        network_of(ResNet(depth=8, freeze=["stage9"]), digits)
    with pytest.raises(ConfigError, match=r"model.freeze: leaves nothing to train. Freeze fewer parts"):
        network_of(ResNet(depth=8, freeze=["*"]), digits)


KINDS: dict[str, tuple[str, ...]] = {
    "single": (),
    "adamw": ("training.optimizer.kind=adamw", "training.optimizer.weight_decay=0.5"),
    "lawa": ("averaging.kind=lawa",),
    "swa": ("averaging.kind=swa", "averaging.start=0"),
    "adversarial": ("perturbation.kind=tdiv_sdiv",),
}


def frozen_config(*overrides: str) -> Config:
    model = ResNet(depth=8, width=4, freeze=["conv", "norm", "stage1", "stage2.0.*1"])
    return tiny_config(*overrides).model_copy(update={"model": model})


@pytest.mark.parametrize("kind", KINDS)
def test_training_changes_only_weights_and_statistics_that_are_not_frozen(
    kind: str, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    run = distill(frozen_config(*KINDS[kind]), ensemble, digits)
    start = copy.deepcopy(run._student.network[1].state_dict())
    assert [epoch.number for epoch in run] == [1, 2, 3]
    end = run.student()[1].state_dict()
    same = {name for name in start if torch.equal(start[name], end[name])}
    frozen = ("conv.", "norm.", "stage1.", "stage2.0.residual.conv1", "stage2.0.residual.norm1")
    assert same == {name for name in start if name.startswith(frozen)}


def test_freezing_a_batch_ensemble_freezes_shared_weights_but_not_factors(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    overrides = (
        "student.kind=batch_ensemble",
        "student.subnetworks=2",
        "student.bias=per_member",
        "loss.kind=one_to_one",
    )
    run = distill(tiny_config("model.freeze=['0']", *overrides), ensemble, digits)
    layer: Any = run._student.network[1][0]
    before = copy.deepcopy(layer.state_dict())
    next(run)
    next(run)
    assert {name: torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items()} == {
        "r": False,
        "s": False,
        "layer.weight": True,
        **({"bias": True} if layer.bias is not None else {}),
    }


def test_refreshing_batchnorm_and_copying_a_network_do_not_change_frozen_statistics() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 4))
    network[0].running_mean.fill_(0.3)
    prepare_training(nn.Sequential(nn.Identity(), network), Convnet(freeze=["0"]), 4)
    clone = copy.deepcopy(network).train()
    update_bn([torch.rand(8, 2)], clone)
    assert clone[0].running_mean.tolist() == pytest.approx([0.3, 0.3])
    assert clone[2].running_mean.tolist() != [0, 0, 0]
    assert isinstance(clone[0], nn.BatchNorm1d)
    assert [module.training for module in clone] == [False, True, True, True]


def test_a_network_with_frozen_statistics_can_be_pickled_and_has_the_repr_of_a_plain_network() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3))
    plain, x = repr(network), torch.rand(8, 2)
    prepare_training(nn.Sequential(nn.Identity(), network), Convnet(freeze=["0"]), 3)
    again = pickle.loads(pickle.dumps(network)).train()  # noqa: S301
    assert repr(network) == repr(again) == plain
    assert not again[0].training
    assert not again[0].weight.requires_grad
    torch.testing.assert_close(again(x), network(x))


def test_with_a_body_learning_rate_of_zero_only_the_classifier_is_trained(digits: DataSplits) -> None:
    network = network_of(MODEL.model_copy(update={"body_lr": 0.0}), digits)[1]
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert trained == list(CLASSIFIER)


# --- learning rate of the body ---


def rates(config: Config, data: DataSplits, ensemble: TeacherEnsemble) -> dict[str, float]:
    run = Distiller(config, ensemble, data)
    names = {id(p): name for name, p in run._student.named_parameters()}
    return {names[id(p)]: group["lr"] for group in run._optimizer.param_groups for p in group["params"]}


def test_the_body_can_have_a_lower_learning_rate_than_the_classifier(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    found = rates(tiny_config("model.body_lr=0.1", "training.optimizer.lr=0.5"), digits, ensemble)
    assert {name for name, lr in found.items() if lr == 0.5} == {f"network.1.{name}" for name in CLASSIFIER}
    assert {lr for name, lr in found.items() if not name.startswith("network.1.9")} == {0.05}


def test_factors_have_the_learning_rate_of_the_layer_that_they_scale(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    settings = ("student.kind=batch_ensemble", "student.factor_gradient=mean", "student.factor_lr=2")
    found = rates(tiny_config("model.body_lr=0.1", "training.optimizer.lr=0.5", *settings), digits, ensemble)
    names = [f"network.1.{layer}.{factor}" for layer in (0, 9) for factor in ("r", "s")]
    assert [found[name] for name in names] == pytest.approx([0.1, 0.1, 1.0, 1.0])


def test_a_body_learning_rate_is_refused_for_a_network_without_a_classifier() -> None:
    network = nn.Sequential(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Unflatten(1, (2, 3))))
    with pytest.raises(ConfigError, match=r"model.body_lr: this network has no linear or convolutional layer with 3"):
        prepare_training(network, Convnet(body_lr=0.1), 3)


# --- timm ---


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet10t", (3, 32, 32)), ("vit_tiny_patch16_224", (1, 32, 48)), ("convnext_atto", (1, 32, 32))],
)
def test_a_timm_network_accepts_the_images_and_starts_from_its_published_weights(
    name: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    network = Timm(name=name)(shape, 7).eval()
    with torch.no_grad():
        assert network(torch.rand(2, *shape)).shape == (2, 7)
    size = {"img_size": shape[1:]} if name.startswith("vit") else {}
    published: dict[str, Tensor] = timm.create_model(name, num_classes=1000, in_chans=shape[0], **size).state_dict()
    save_file(published, tmp_path / "model.safetensors")
    whole = nn.Sequential(nn.Identity(), network)
    with pytest.warns(UserWarning, match="starts from random weights"):
        prepare_training(whole, Timm(name=name, weights=str(tmp_path / "model.safetensors")), 7)
    different = {n for n, tensor in network.state_dict().items() if not torch.equal(tensor, published[n])}
    assert {n.rpartition(".")[0] for n in different} <= {"fc", "head", "head.fc"}
    assert different


def test_an_unknown_timm_network_and_a_missing_timm_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=r"model.name: timm has no network 'resnet18z' \(did you mean resnet18\?\)"):
        Timm(name="resnet18z")((3, 32, 32), 2)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"run `pip install 'ensdistill\[timm\]'`, or use another kind"):
        Timm()((3, 32, 32), 2)


def test_published_weights_that_do_not_fit_are_named_in_the_error(
    digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Torchvision(name="resnet18")
    network = nn.Sequential(nn.Identity(), model((3, 32, 32), 10))
    other = Torchvision(name="resnet18", stem="original")((3, 32, 32), 10).state_dict()
    monkeypatch.setattr(Torchvision, "published", lambda self: other)
    with pytest.warns(UserWarning, match="model.pretrained: these layers start from random weights, .*: conv1$"):
        prepare_training(network, model, 10)
