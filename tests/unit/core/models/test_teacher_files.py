"""Teacher files from elsewhere: all common formats are read, all others are refused, and no code is executed."""

import argparse
import itertools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.config import Config, Teachers, build_config
from ensdistill.data import DataSplits, load_data
from ensdistill.errors import ConfigError, DataError
from ensdistill.models import Convnet, ResNet, Torchvision, build
from ensdistill.models.teacher_files import TeacherFile
from ensdistill.models.weight_files import find_weights
from ensdistill.runtime.weights import load_weights, save_weights
from ensdistill.training.loop import distill
from ensdistill.training.teachers import get_ensemble, teacher_config
from tests.unit.core.core_stand_ins import tiny_config

MODEL = Convnet(width=2, blocks=2)


def original(data: DataSplits, seed: int = 7, model: Any = MODEL) -> nn.Sequential:
    """Returns a network with the BatchNorm statistics of a few training steps, in evaluation mode."""
    network = build(model, data, seed)
    with torch.no_grad():
        network.train()(data.train[slice(None)][0])
    return network.eval()


def images(data: DataSplits) -> Tensor:
    return data.validation[slice(0, 20)][0]


def read(path: Path, data: DataSplits, **settings: Any) -> nn.Module:
    """Returns the teacher of the file in evaluation mode."""
    return TeacherFile(path=str(path), **{"model": MODEL, **settings})(data)[0].eval()


# --- supported formats of weights ---


def with_prefix(state: dict[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


FORMS: dict[str, Callable[[dict[str, Tensor], Path], Any]] = {
    "torch": torch.save,
    "safetensors": lambda state, path: save_file(state, path.with_suffix(".safetensors")),
    "torch with prefix": lambda state, path: torch.save(with_prefix(state), path),
    "safetensors with prefix": lambda state, path: save_file(with_prefix(state), path.with_suffix(".safetensors")),
    "in state_dict": lambda state, path: torch.save({"state_dict": state, "epoch": 3, "best": 0.9}, path),
    "in model_state_dict": lambda state, path: torch.save({"model_state_dict": with_prefix(state)}, path),
    "in model, with an optimizer": lambda state, path: torch.save(
        {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, path
    ),
    "in torch's older format": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_teacher_from_a_file_has_the_outputs_of_the_original(form: str, tmp_path: Path, digits: DataSplits) -> None:
    network = original(digits)
    FORMS[form](network[1].state_dict(), tmp_path / "weights.pth")
    (path,) = tmp_path.iterdir()
    assert torch.equal(read(path, digits)(images(digits)), network(images(digits)))


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_a_teacher_file_of_this_project_includes_the_normalization(
    form: str, tmp_path: Path, digits: DataSplits
) -> None:
    network = original(digits)
    network[0].mean.add_(0.25)
    FORMS[form](network.state_dict(), tmp_path / "weights.pth")
    (path,) = tmp_path.iterdir()
    assert torch.equal(read(path, digits)(images(digits)), network(images(digits)))


def test_weights_files_of_this_project_can_be_loaded_as_teachers(tmp_path: Path, digits: DataSplits) -> None:
    network = original(digits)
    save_weights(tmp_path / "network.safetensors", network, {"note": "kept"})
    assert torch.equal(read(tmp_path / "network.safetensors", digits)(images(digits)), network(images(digits)))


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mnasnet0_5"])
def test_weights_of_any_network_can_be_stored_and_loaded(name: str, tmp_path: Path, digits: DataSplits) -> None:
    network, other = (build(Torchvision(name=name), digits, seed).eval() for seed in (0, 1))
    save_weights(tmp_path / "network.safetensors", network)
    load_weights(tmp_path / "network.safetensors", other)
    assert torch.equal(other(images(digits)), network(images(digits)))


def test_half_precision_weights_are_converted_to_single_precision(tmp_path: Path, digits: DataSplits) -> None:
    network = original(digits)
    torch.save(
        {name: t.half() if t.is_floating_point() else t for name, t in network[1].state_dict().items()},
        tmp_path / "half.pt",
    )
    teacher = read(tmp_path / "half.pt", digits)
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}
    assert_close(teacher(images(digits)), network(images(digits)), atol=0.01, rtol=0.01)


@pytest.mark.parametrize("form", ["torch", "safetensors"])
@pytest.mark.parametrize(
    "model",
    [ResNet(depth=8, width=2), Torchvision(name="shufflenet_v2_x0_5"), Torchvision(name="mnasnet0_5")],
    ids=lambda model: getattr(model, "name", model.kind),
)
def test_a_teacher_file_may_have_any_configured_architecture(
    form: str, model: Any, tmp_path: Path, digits: DataSplits
) -> None:
    network = original(digits, model=model)
    FORMS[form](network[1].state_dict(), tmp_path / "weights.pth")
    (path,) = tmp_path.iterdir()
    assert torch.equal(read(path, digits, model=model)(images(digits)), network(images(digits)))


# --- normalization ---


def test_a_teacher_from_a_file_uses_the_mean_and_std_given_in_the_settings(tmp_path: Path, digits: DataSplits) -> None:
    network = original(digits)
    torch.save(network[1].state_dict(), tmp_path / "weights.pt")
    teacher = read(tmp_path / "weights.pt", digits, mean=[0.5], std=[0.25])
    assert_close(teacher(images(digits)), network[1]((images(digits) - 0.5) / 0.25))


def test_by_default_mean_and_std_are_computed_from_the_training_images(tmp_path: Path, digits: DataSplits) -> None:
    network = original(digits)
    torch.save(network[1].state_dict(), tmp_path / "weights.pt")
    pixels = digits.train.images.double() / 255
    expected = network[1](((images(digits) - pixels.mean()) / pixels.std(correction=0)).float())
    assert_close(read(tmp_path / "weights.pt", digits)(images(digits)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], []), ([], [0.5]), ([0.5, 0.5, 0.5], [0.2, 0.2, 0.2]), ([0.5, 0.5], [0.5])]
)
def test_mean_and_std_that_do_not_match_the_image_channels_are_refused(
    mean: list[float], std: list[float], tmp_path: Path, digits: DataSplits
) -> None:
    torch.save(original(digits)[1].state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match=r"teachers\.checkpoints: mean and std"):
        read(tmp_path / "weights.pt", digits, mean=mean, std=std)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mean", [128.0]),
        ("mean", [0.4, 116.28, 0.3]),
        ("mean", [-0.1]),
        ("std", [256.0]),
        ("std", [58.4]),
        ("std", [0.0]),
        ("std", [-1.0]),
    ],
)
def test_mean_and_std_outside_the_range_0_to_1_are_refused(name: str, values: list[float]) -> None:
    with pytest.raises(ConfigError) as caught:
        with_files([{"path": "x.pt", "mean": [0.5] * len(values), "std": [0.5] * len(values), name: values}], 0)
    (issue,) = caught.value.issues
    assert (issue.name, issue.value) == (f"teachers.checkpoints.0.{name}", values)
    assert "by 255" in str(issue)


def test_a_std_of_1_over_255_is_accepted_for_networks_that_expect_pixels_from_0_to_255() -> None:
    files = [{"path": "x.pt", "mean": [0.0], "std": [1 / 255]}, {"path": "y.pt", "mean": [0.0], "std": [1.0]}]
    assert with_files(files, 0).teachers.total == 2


# --- wrappers and prefixes ---

PREFIXES = ["module.", "_orig_mod.", "model.", "net."]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_wrapper_prefixes_in_any_order_is_removed(count: int, digits: DataSplits) -> None:
    network = Convnet(width=2, blocks=2)((1, 8, 8), 10)
    for prefixes in itertools.product(PREFIXES, repeat=count):
        (found, *others), _ = find_weights(with_prefix(network.state_dict(), "".join(prefixes)), network)
        assert not others
        assert all(torch.equal(found.state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["backbone.", "encoder.net.module.", "student_network.", "0."])
def test_an_unknown_prefix_is_detected_from_the_parameter_names(prefix: str) -> None:
    network = ResNet(depth=8, width=2)((1, 8, 8), 10)
    (found,), _ = find_weights(with_prefix(network.state_dict(), prefix), network)
    assert found.prefix == prefix


def inside(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Returns the state dict with a component inserted after the first part of each name."""
    return {name.replace(".", f".{part}.", 1): tensor for name, tensor in state.items()}


class Hyper(argparse.Namespace):
    """An object that is not a tensor."""


EXTRAS = {
    "epoch": 3,
    "args": argparse.Namespace(lr=0.1),
    "hyper": Hyper(a=[1]),
    "best": np.float64(0.9),
    "path": Path("x"),
    "when": datetime(2026, 1, 1),
    "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
}
CHECKPOINTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "state_dict beside objects": lambda state: {"state_dict": with_prefix(state), **EXTRAS},
    "model": lambda state: {"model": state, **EXTRAS},
    "net": lambda state: {"net": with_prefix(state), "acc": 0.9},
    "ema alone": lambda state: {"ema": state},
    "model_ema": lambda state: {"model_ema": with_prefix(state, "module.")},
    "wrapper of no known name": lambda state: {"student_weights": state, "step": 1},
    "wrapper in a wrapper": lambda state: {"checkpoint": {"model": {"state_dict": with_prefix(state, "net.")}}},
    "Lightning": lambda state: {
        "epoch": 1,
        "global_step": 5,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {
            **with_prefix(state, "model."),
            "criterion.weight": torch.ones(10),
            "metric.total": torch.ones(1),
        },
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": argparse.Namespace(width=2),
    },
    "average of torch": lambda state: {**with_prefix(state), "n_averaged": torch.tensor(7)},
    "counters left out": lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
    "counters of a profiler": lambda state: {**state, "0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "compiled parts": lambda state: inside(state, "_orig_mod"),
    "sharded": lambda state: with_prefix(inside(state, "_fsdp_wrapped_module"), "_fsdp_wrapped_module."),
    "parts computed twice": lambda state: inside(state, "_checkpoint_wrapped_module"),
    "parallel and compiled parts": lambda state: with_prefix(inside(state, "_orig_mod.module"), "module."),
    "half": lambda state: {name: t.bfloat16() if t.is_floating_point() else t for name, t in state.items()},
    "double": lambda state: {name: t.double() if t.is_floating_point() else t for name, t in state.items()},
    "parameters": lambda state: {name: nn.Parameter(t, t.is_floating_point()) for name, t in state.items()},
    "the same twice": lambda state: {"state_dict": state, "ema": {name: t.clone() for name, t in state.items()}},
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_of_other_projects_are_read(kind: str, tmp_path: Path, digits: DataSplits) -> None:
    network = original(digits)
    torch.save(CHECKPOINTS[kind](network[1].state_dict()), tmp_path / "weights.ckpt")
    loaded = TeacherFile(path=str(tmp_path / "weights.ckpt"), model=MODEL)(digits)
    assert not loaded.warnings
    exact = {"atol": 0, "rtol": 0} if kind != "half" else {"atol": 0.1, "rtol": 0.1}
    assert_close(loaded.network.eval()(images(digits)), network(images(digits)), **exact)


def test_a_safetensors_file_may_have_any_suffix(tmp_path: Path, digits: DataSplits) -> None:
    network = original(digits)
    save_file(with_prefix(network[1].state_dict(), "_orig_mod.module."), tmp_path / "weights.bin")
    assert torch.equal(read(tmp_path / "weights.bin", digits)(images(digits)), network(images(digits)))


@pytest.mark.parametrize(
    ("wrap", "taken", "other"),
    [
        (lambda a, b: {"ema": b, "model": a}, {"key": "model"}, {"key": "ema"}),
        (lambda a, b: {"state_dict_ema": b, "state_dict": a}, {"key": "state_dict"}, {"key": "state_dict_ema"}),
        (lambda a, b: {"best": b, "net": with_prefix(a)}, {"key": "net"}, {"key": "best"}),
        (
            lambda a, b: {"state_dict": with_prefix(b, "ema_model.module.") | with_prefix(a, "model.")},
            {"prefix": "model."},
            {"prefix": "ema_model.module"},
        ),
    ],
)
def test_the_more_likely_of_two_networks_is_loaded_with_a_warning_unless_settings_select_one(
    wrap: Any, taken: dict[str, str], other: dict[str, str], tmp_path: Path, digits: DataSplits
) -> None:
    first, second = original(digits, 1), original(digits, 2)
    torch.save(wrap(first[1].state_dict(), second[1].state_dict()), tmp_path / "two.pt")
    loaded = TeacherFile(path=str(tmp_path / "two.pt"), model=MODEL)(digits)
    (warning,) = loaded.warnings
    assert [name in str(warning) for name in (*taken.values(), *other.values())] == [True, True]
    for settings, network in (({}, first), (taken, first), (other, second)):
        assert torch.equal(read(tmp_path / "two.pt", digits, **settings)(images(digits)), network(images(digits)))


def test_two_equally_likely_networks_are_refused(tmp_path: Path, digits: DataSplits) -> None:
    one, two = original(digits, 1)[1].state_dict(), original(digits, 2)[1].state_dict()
    torch.save(with_prefix(one, "student.") | with_prefix(two, "teacher."), tmp_path / "two.pt")
    with pytest.raises(DataError, match=r"prefix student, prefix teacher$"):
        read(tmp_path / "two.pt", digits)
    assert torch.equal(read(tmp_path / "two.pt", digits, prefix="teacher")[1][0].weight, two["0.weight"])


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"key": "modle"}, "no weights at key modle; weights are at model"),
        ({"prefix": "modul."}, "; names start with module"),
    ],
)
def test_an_unknown_key_or_prefix_is_reported_and_the_available_ones_are_listed(
    settings: dict[str, str], found: str, tmp_path: Path, digits: DataSplits
) -> None:
    torch.save({"model": with_prefix(original(digits)[1].state_dict())}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=found):
        read(tmp_path / "weights.pt", digits, **settings)


def test_an_empty_key_or_prefix_is_omitted_from_settings_and_hashes() -> None:
    file = TeacherFile(path="x")
    assert set(file.model_dump()) == {"path", "model", "mean", "std"}
    assert TeacherFile(path="x", key="ema").model_dump()["key"] == "ema"


MISFITS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "classes": (
        lambda state: {name: t[:5] if t.shape[:1] == (10,) else t for name, t in state.items()},
        r"is 5x\d+ in the file and 10x\d+ in the network",
    ),
    "missing": (lambda state: dict(list(state.items())[1:]), r"1 of \d+ tensors is missing, such as 0\.weight"),
    "too many": (lambda state: {**state, "extra.weight": torch.zeros(1)}, "1 unexpected, such as extra.weight"),
    "integers": (
        lambda state: {name: (t * 100).to(torch.int8) for name, t in state.items()},
        "is torch.int8 in the file and torch.float32 in the network",
    ),
    "sparse": (lambda state: {n: t.to_sparse() if t.dim() == 4 else t for n, t in state.items()}, "is sparse"),
    "without values": (lambda state: {name: t.to("meta") for name, t in state.items()}, "has no values in the file"),
    "other names": (
        lambda state: {f"x{n}": t for n, t in enumerate(state.values())},
        "it has none of the network's parameter names",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_weights_that_do_not_fit_are_refused_and_the_error_states_the_first_difference(
    kind: str, tmp_path: Path, digits: DataSplits
) -> None:
    change, why = MISFITS[kind]
    torch.save({"state_dict": change(original(digits)[1].state_dict())}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=f"in state_dict: .*{why}"):
        read(tmp_path / "weights.pt", digits)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_torchscript_program_is_recognized_and_reported(tmp_path: Path, digits: DataSplits) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(DataError, match="is a TorchScript program; save only the network's state_dict"):
        read(tmp_path / "program.pt", digits)


# --- errors ---


def test_a_missing_file_is_named_in_the_error(tmp_path: Path, digits: DataSplits) -> None:
    with pytest.raises(DataError, match=r"nothing\.pt: no such weights file"):
        read(tmp_path / "nothing.pt", digits)


def test_folders_and_placeholder_files_are_recognized_and_reported(tmp_path: Path, digits: DataSplits) -> None:
    with pytest.raises(DataError, match="is a folder; give a weights file in it"):
        read(tmp_path, digits)
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
        with pytest.raises(DataError, match=f"{name}: a Git LFS pointer, not the file itself; fetch it with `git lfs"):
            read(tmp_path / name, digits)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 500, -1])
def test_a_truncated_file_is_named_in_the_error(suffix: str, keep: int, tmp_path: Path, digits: DataSplits) -> None:
    path = tmp_path / f"weights{suffix}"
    state = original(digits)[1].state_dict()
    (torch.save if suffix == ".pt" else save_file)(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"weights{suffix}"):
        read(path, digits)


@pytest.mark.parametrize(
    "content", [[1, 2], {"epoch": 3}, {"state_dict": {"weight": 1.0}}, torch.zeros(3), {}], ids=str
)
def test_a_file_without_a_state_dict_is_named_in_the_error(content: Any, tmp_path: Path, digits: DataSplits) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"weights\.pt"):
        read(tmp_path / "weights.pt", digits)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("place", ["alone", "beside", "inside"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors", ""])
def test_no_code_in_a_file_is_executed(place: str, suffix: str, tmp_path: Path, digits: DataSplits) -> None:
    mark, path = tmp_path / "executed", tmp_path / f"weights{suffix}"
    state = dict(original(digits)[1].state_dict())
    evil = Evil(mark)
    torch.save(
        {"alone": evil, "beside": {"state_dict": state, "note": evil}, "inside": {**state, "x": evil}}[place], path
    )
    with pytest.raises(DataError, match="weights"):
        read(path, digits)
    assert not mark.exists()


def test_a_pickled_network_is_refused_and_the_error_states_the_fix(tmp_path: Path, digits: DataSplits) -> None:
    torch.save(original(digits), tmp_path / "network.pt")
    with pytest.raises(DataError, match=r"network\.pt.*state_dict"):
        read(tmp_path / "network.pt", digits)


@pytest.mark.parametrize("model", [Convnet(width=3, blocks=2), Convnet(width=2, blocks=3), ResNet(depth=8)])
def test_weights_of_a_different_architecture_are_refused(model: Any, tmp_path: Path, digits: DataSplits) -> None:
    torch.save(original(digits)[1].state_dict(), tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"weights\.pt: these weights do not fit teachers\.checkpoints\.model"):
        read(tmp_path / "weights.pt", digits, model=model)


def test_weights_for_a_different_number_of_classes_are_refused(tmp_path: Path, digits: DataSplits) -> None:
    state = original(digits)[1].state_dict()
    names = list(state)
    torch.save({name: t[:5] if name in names[-2:] else t for name, t in state.items()}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match="do not fit"):
        read(tmp_path / "weights.pt", digits)


# --- ensembles ---


@pytest.fixture
def files(tmp_path: Path, digits: DataSplits) -> list[dict[str, Any]]:
    """Two teacher files with different architectures."""
    made = []
    for n, model in enumerate((MODEL, ResNet(depth=8, width=2))):
        path = tmp_path / f"teacher{n}.pt"
        torch.save(original(digits, n, model)[1].state_dict(), path)
        made.append({"path": str(path), "model": model.model_dump()})
    return made


def with_files(files: list[dict[str, Any]], count: int, **teachers: Any) -> Config:
    tree = tiny_config().model_dump(mode="json")
    tree["teachers"] |= {"count": count, "checkpoints": files, **teachers}
    return build_config(tree)


def test_an_ensemble_may_consist_of_teacher_files_only(
    files: list[dict[str, Any]], tmp_path: Path, digits: DataSplits
) -> None:
    config = with_files(files, 0)
    ensemble = get_ensemble(config, digits, tmp_path / "store")
    assert len(ensemble) == config.teachers.total == 2
    expected = [original(digits, 0), original(digits, 1, ResNet(depth=8, width=2))]
    for logits, network in zip(ensemble(images(digits)), expected, strict=True):
        assert_close(logits, network(images(digits)))
    assert not any(p.requires_grad for p in ensemble.parameters())
    assert len(list(distill(config, ensemble, digits))) == 3


def test_teacher_files_are_added_to_trained_teachers(
    files: list[dict[str, Any]], tmp_path: Path, digits: DataSplits
) -> None:
    both = get_ensemble(with_files(files, 1), digits, tmp_path / "store")
    trained = get_ensemble(with_files([], 1), digits, tmp_path / "store")
    assert len(both) == 3
    assert_close(both(images(digits), [0]), trained(images(digits)))
    assert_close(both(images(digits), [1])[0], original(digits, 0)(images(digits)))
    assert both.identity != trained.identity


def test_an_invalid_file_is_reported_before_any_teacher_is_trained(
    files: list[dict[str, Any]], tmp_path: Path, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensdistill.training.teachers.distill", lambda *_: pytest.fail("a teacher was trained"))
    Path(files[1]["path"]).unlink()
    with pytest.raises(DataError, match=r"teacher1\.pt"):
        get_ensemble(with_files(files, 2), digits, tmp_path / "store")


def test_the_identity_of_a_teacher_depends_on_its_weights_and_not_on_the_file_path(
    files: list[dict[str, Any]], tmp_path: Path, digits: DataSplits
) -> None:
    def identity(files: list[dict[str, Any]]) -> str:
        return get_ensemble(with_files(files, 0), digits, tmp_path / "store").identity

    before = identity(files)
    moved = tmp_path / "elsewhere.pt"
    Path(files[0]["path"]).rename(moved)
    files[0]["path"] = str(moved)
    assert identity(files) == before
    assert identity([{**files[0], "mean": [0.5], "std": [0.5]}, files[1]]) != before
    assert identity(files[::-1]) != before
    torch.save(original(digits, 99)[1].state_dict(), moved)
    assert identity(files) != before


def test_teachers_use_the_listed_architectures_in_turn(digits: DataSplits, tmp_path: Path) -> None:
    models = [MODEL, ResNet(depth=8, width=2)]
    config = with_files([], 3, models=[model.model_dump() for model in models])
    assert [teacher_config(config, m).model for m in range(3)] == [models[0], models[1], models[0]]
    ensemble = get_ensemble(config, digits, tmp_path)
    plain = [build(model, digits, 0) for model in (models[0], models[1], models[0])]
    assert [convolutions(network) for network in ensemble.networks] == [convolutions(network) for network in plain]


def convolutions(network: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(module.weight.shape) for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_a_list_of_one_architecture_gives_the_same_teachers_as_no_list(digits: DataSplits, tmp_path: Path) -> None:
    plain, listed = with_files([], 2), with_files([], 2, models=[tiny_config().teachers.model.model_dump()])
    one, two = (get_ensemble(config, digits, tmp_path) for config in (plain, listed))
    assert one.identity == two.identity


def test_an_empty_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="an ensemble requires a teacher"):
        Teachers(count=0)


def test_untrained_teachers_accept_batches_of_any_size(files: list[dict[str, Any]]) -> None:
    training = {**tiny_config().teachers.training.model_dump(mode="json"), "batch_size": 41}
    assert with_files(files, 0, training=training).teachers.total == 2
    with pytest.raises(ConfigError, match=r"teachers\.training\.batch_size"):
        with_files(files, 1, training=training)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    data = load_data(tiny_config().data)
    network = Convnet(width=2)((1, 8, 8), 10)
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] = torch.nan
    torch.save(network.state_dict(), tmp_path / "nan.pt")
    with pytest.raises(DataError, match=r"nan\.pt: 0\.weight contains numbers that are not finite"):
        TeacherFile(path=str(tmp_path / "nan.pt"), model=Convnet(width=2))(data)
