"""Each file of an export reproduces the outputs of the student; otherwise, it is not written."""

import importlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from ensdistill import (
    ConfigError,
    DataError,
    DistillationRun,
    ExportError,
    export_student,
    load_config,
    load_run,
    open_classifier,
)
from ensdistill.config import Config
from ensdistill.data import DataSplits, Split, load_data, load_test
from ensdistill.errors import ConfigIssue
from ensdistill.evaluation.latency import LEAST, WITH_RESIZE, _milliseconds, prices
from ensdistill.evaluation.predict import evaluate, predict
from ensdistill.export.model_card import StudyContext
from ensdistill.export.student_file import _empty_network, load_deployable
from ensdistill.methods.members import CombinedClassifier, TeacherEnsemble
from ensdistill.models import CustomModel, Torchvision
from ensdistill.runtime.weights import read_metadata, save_weights
from ensdistill.training.new_student import new_student
from tests.commands import call, process
from tests.plugin.ensdistill_example.methods import Focal
from tests.plugin.ensdistill_example.networks import Copies
from tests.unit.core.core_stand_ins import random_ensemble, tiny_config

NETWORKS = ("student.safetensors", "student.pt2", "student.onnx")
student_file = importlib.import_module("ensdistill.export.student_file")
exporting = importlib.import_module("ensdistill.export.network_files")


@pytest.fixture(autouse=True, scope="module")
def hasty() -> Any:
    """Measures latency with the minimum number of rounds, because the value does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ensdistill.evaluation.latency.SECONDS", 0.0)
        yield


def made(config: Config, data: DataSplits, ensemble: TeacherEnsemble | None = None) -> DistillationRun:
    """Returns a run with an untrained student whose BatchNorm statistics have been updated by images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = new_student(config, data).train()
        for p in student.parameters():
            p.data.add_(0.05 * torch.randn_like(p))
        for _ in range(20):
            student(data.train[slice(0, 20)][0])
    identity = ensemble.identity if ensemble is not None else "strangers"
    return DistillationRun(config, data, student.merged().eval(), identity, ensemble)


@pytest.fixture(scope="module")
def run(digits: DataSplits, ensemble: TeacherEnsemble) -> DistillationRun:
    return made(tiny_config(preset="latentbe"), digits, ensemble)


@pytest.fixture(scope="module")
def exported(run: DistillationRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(run, tmp_path_factory.mktemp("export") / "mine", "cc-by-4.0").folder


def assert_says_the_same(folder: Path, run: DistillationRun) -> None:
    """Asserts that each file reproduces the predictions of the network for batches of different sizes."""
    expected = predict(run.network, run.data.validation)
    images = run.data.validation.images.permute(0, 2, 3, 1).numpy()
    for name in NETWORKS:
        file = open_classifier(folder / name)
        for size in (1, 3, len(images)):
            logits, probabilities = file.answer(images[:size])
            torch.testing.assert_close(torch.tensor(probabilities).double().log(), expected[:size], atol=1e-4, rtol=0)
            torch.testing.assert_close(
                torch.tensor(logits).double().log_softmax(-1), expected[:size], atol=1e-4, rtol=0
            )


# --- every student and every network ---

KINDS = [
    ("kd", []),
    ("latentbe", []),
    ("latentbe", ["student.merge=mean_of_probabilities"]),
    ("ekd", []),
    ("hydra", ["student.merge=sum_of_logits"]),
    ("proxy_end2", []),
]


@pytest.mark.parametrize(
    ("preset", "overrides"), KINDS, ids=lambda value: "-".join([value] if isinstance(value, str) else value)
)
def test_every_exported_student_has_the_outputs_of_the_original(
    preset: str, overrides: Sequence[str], digits: DataSplits, tmp_path: Path
) -> None:
    run = made(tiny_config(*overrides, preset=preset), digits)
    assert_says_the_same(export_student(run, tmp_path).folder, run)


@pytest.mark.parametrize(
    "model",
    [
        ["model.kind=resnet", "model.depth=8", "model.width=4"],
        ["model.kind=wide_resnet", "model.depth=10", "model.width=1"],
        ["model.kind=torchvision", "model.name=squeezenet1_1"],
    ],
    ids=lambda model: model[0],
)
def test_every_exported_network_has_the_outputs_of_the_original(model: list[str], tmp_path: Path) -> None:
    run = made(load_config("kd", [*model, "data.train_size=40", "training.batch_size=10"]), colored())
    assert_says_the_same(export_student(run, tmp_path).folder, run)


def colored(count: int = 40) -> DataSplits:
    """Returns noise images of 16x16 pixels with three channels and three classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(count) % 3)
    return DataSplits(split, split, Split(images[:0], split.labels[:0]), ("cat", "dog", "Käse, alt"), "noise")


MINE = """
from torch import nn
def network(num_classes, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], num_classes))
"""


def test_a_custom_network_is_imported_if_named_in_settings_but_not_if_named_in_an_exported_file(
    digits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_networks.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    run = made(tiny_config().model_copy(update={"model": CustomModel(path="my_networks:network")}), digits)
    folder = export_student(run, tmp_path / "out").folder
    with pytest.raises(DataError, match=r"refuses to import my_networks:network, .*use the \.onnx file"):
        open_classifier(folder)
    assert open_classifier(folder / "student.onnx").class_names == digits.class_names


# --- verification ---


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes one kind of file from a student whose last bias is shifted by the given value."""

    def off(network: nn.Module, by: float) -> nn.Module:
        copy = deepcopy(network)
        [*copy.parameters()][-1].data.add_(by)
        return copy

    def spoil(name: str, by: float) -> None:
        save, trace = exporting.save_weights, exporting._program
        if name == "safetensors":
            monkeypatch.setattr(exporting, "save_weights", lambda path, n, notes: save(path, off(n, by), notes))
        else:
            monkeypatch.setattr(
                exporting, "_program", lambda s, run: trace(replace(run, network=off(s.network, by)).deployable, run)
            )

    return spoil


@pytest.mark.parametrize("name", ["safetensors", "pt2", "onnx"])
def test_a_file_whose_outputs_differ_is_not_written_and_the_error_states_the_difference(
    name: str, run: DistillationRun, tmp_path: Path, spoilt: Any
) -> None:
    spoilt(name, 0.25)
    with pytest.raises(
        ExportError, match=rf"student\.{name}: differs from the student by 0\.25 in a logit, more than 0\.0001"
    ):
        export_student(run, tmp_path / "out", formats=[name])
    assert not list((tmp_path / "out").iterdir())


def test_an_export_of_a_student_with_nan_outputs_is_refused(run: DistillationRun, tmp_path: Path, spoilt: Any) -> None:
    spoilt("safetensors", float("nan"))
    with pytest.raises(ExportError, match="differs from the student by nan"):
        export_student(run, tmp_path, formats=["safetensors"])


def test_an_output_difference_in_the_last_digits_is_reported_and_accepted(
    run: DistillationRun, tmp_path: Path, spoilt: Any
) -> None:
    spoilt("safetensors", 5e-5)
    assert export_student(run, tmp_path, formats=["safetensors"]).differences["student.safetensors"] == pytest.approx(
        5e-5, rel=0.1
    )


def test_an_earlier_export_is_unchanged_if_one_file_is_refused(
    run: DistillationRun, exported: Path, tmp_path: Path, spoilt: Any
) -> None:
    shutil.copytree(exported, tmp_path / "out")
    spoilt("onnx", 1.0)
    with pytest.raises(ExportError):
        export_student(run, tmp_path / "out", "mit")
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == {
        f.name: f.read_bytes() for f in exported.iterdir()
    }


@pytest.mark.parametrize("left", ["student.safetensors", "config.yaml"])
def test_an_export_does_not_overwrite_the_export_of_a_different_student(
    left: str, exported: Path, digits: DataSplits, tmp_path: Path
) -> None:
    shutil.copy(exported / left, tmp_path)
    with pytest.raises(DataError, match="contains another student"):
        export_student(made(tiny_config(), digits), tmp_path)


def test_without_the_onnx_libraries_only_the_onnx_export_is_refused(
    run: DistillationRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'ensdistill[export]'")):
        export_student(run, tmp_path / "out")
    assert set(export_student(run, tmp_path, formats=["safetensors"]).differences) == {"student.safetensors"}


def test_a_network_that_cannot_be_traced_is_refused_with_a_one_line_error(digits: DataSplits, tmp_path: Path) -> None:
    class Fickle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :10] if x.sum() > 0 else -x.flatten(1)[:, :10]

    network = nn.Sequential(nn.Linear(8, 8), Fickle())
    with pytest.raises(ExportError, match="cannot be written as pt2 and onnx") as caught:
        export_student(DistillationRun(tiny_config(), digits, network, "strangers"), tmp_path, formats=["pt2"])
    assert "\n" not in str(caught.value)


# --- metadata of a file ---


def test_the_weights_file_alone_is_sufficient_to_build_the_student_on_any_machine(
    run: DistillationRun, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(exported / "student.safetensors", tmp_path / "alone.safetensors")
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: pytest.fail("the images were read"))
    network = load_deployable(tmp_path / "alone.safetensors").network
    assert torch.equal(predict(network, run.data.validation), predict(run.network, run.data.validation))


def test_code_named_in_a_file_is_not_executed(digits: DataSplits, tmp_path: Path) -> None:
    config = tiny_config().model_copy(update={"student": Copies(subnetworks=2)})
    own = new_student(config, digits).merged().eval()
    file = tmp_path / "student.safetensors"
    save_weights(file, own, DistillationRun(config, digits, own, "random").metadata)
    with pytest.raises(DataError, match=r"refuses to import .*:Copies, because the file is untrusted") as caught:
        load_deployable(file)
    assert "\n" not in str(caught.value)
    network = load_deployable(file, run_imported=True).network
    assert torch.equal(predict(network, digits.validation), predict(own, digits.validation))


@pytest.mark.parametrize(
    "model", [{"kind": "wide_resnet", "depth": 40, "width": 256}, {"kind": "convnet", "width": 4096}]
)
def test_a_huge_network_named_in_a_file_is_refused_before_it_is_built(
    model: dict[str, Any], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_deployable(exported / "student.safetensors").network
    metadata = read_metadata(exported / "student.safetensors")
    settings = json.loads(metadata["config"]) | {"model": model}
    save_weights(tmp_path / "student.safetensors", network, metadata | {"config": json.dumps(settings)})
    monkeypatch.setattr(student_file, "new_student", lambda *_: pytest.fail("the network was built"))
    with pytest.raises(
        DataError, match=r"its settings describe a network with [\d,]+ values, but the file contains [\d,]+; export"
    ):
        load_deployable(tmp_path / "student.safetensors")


def test_a_student_is_loaded_without_the_code_of_its_custom_loss_if_the_loss_has_no_head(
    digits: DataSplits, tmp_path: Path
) -> None:
    run = made(tiny_config().model_copy(update={"loss": Focal()}), digits)
    settings = json.loads(run.metadata["config"]) | {"loss": {"kind": "gone:Loss", "gamma": 3}}
    save_weights(tmp_path / "student.safetensors", run.network, run.metadata | {"config": json.dumps(settings)})
    network = load_deployable(tmp_path / "student.safetensors").network
    assert torch.equal(predict(network, digits.validation), predict(run.network, digits.validation))


def test_code_that_does_not_affect_the_network_is_neither_executed_nor_required(
    digits: DataSplits, tmp_path: Path
) -> None:
    plain = tiny_config()
    run = made(plain, digits)
    settings = plain.model_dump(mode="json") | {
        "data": {"kind": "gone:Images", "size": 3},
        "perturbation": {"kind": "gone:Perturbation"},
        "averaging": {"kind": "gone"},
        "metrics": [{"kind": "gone:Metric"}],
        "schedule": [{"after_epoch": 1, "set": {"perturbation.share": 0.5}}],
    }
    save_weights(tmp_path / "student.safetensors", run.network, run.metadata | {"config": json.dumps(settings)})
    network = load_deployable(tmp_path / "student.safetensors").network
    assert torch.equal(predict(network, digits.validation), predict(run.network, digits.validation))


def test_the_metadata_of_every_file_describe_its_inputs(run: DistillationRun, exported: Path) -> None:
    with safe_open(exported / "student.safetensors", "pt") as file:
        weights = file.metadata()
    notes: dict[str, Any] = {"version": ""}
    torch.export.load(exported / "student.pt2", extra_files=notes)
    onnx = onnxruntime.InferenceSession(exported / "student.onnx").get_modelmeta().custom_metadata_map
    for metadata in (weights, notes, onnx):
        assert json.loads(metadata["class_names"]) == [str(n) for n in range(10)]
        assert json.loads(metadata["shape"]) == [1, 8, 8]
        assert (metadata["settings"], metadata["data"], metadata["ensemble"]) == (
            run.config.hash,
            run.data.identity,
            "random",
        )
        assert Config.model_validate_json(metadata["config"]) == run.config


def test_the_onnx_file_maps_any_number_of_images_to_logits_and_probabilities(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "student.onnx")
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", ["height", "width", 1])
    assert isinstance(images.shape[0], str), "the number of images is free"
    assert [(o.name, o.type, o.shape[1:]) for o in session.get_outputs()] == [
        ("logits", "tensor(float)", [10]),
        ("probabilities", "tensor(float)", [10]),
    ]


def test_exported_settings_are_those_of_the_run(run: DistillationRun, exported: Path) -> None:
    assert load_config(exported / "config.yaml") == run.config


def test_networks_that_started_from_published_weights_are_built_without_those_weights() -> None:
    model = Torchvision(name="googlenet", pretrained="IMAGENET1K_V1")
    config = load_config("kd").model_copy(update={"model": model})
    network = _empty_network(config, (3, 32, 32), ("a", "b"))[1]
    assert network.transform_input, "published weights of GoogLeNet expect images in other statistics"
    bare = config.model_copy(update={"model": Torchvision(name="googlenet")})
    assert not _empty_network(bare, (3, 32, 32), ("a", "b"))[1].transform_input


# --- cost ---


def test_the_inference_cost_includes_bytes_and_parameters_and_operations() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5))
    price = prices({"student": network}, (3, 2, 2), torch.device("cpu"))["student"]
    assert price.parameters == 12 * 5 + 5 + 2 * 5
    assert price.bytes == 4 * (12 * 5 + 5 + 2 * 5 + 2 * 5) + 8  # running mean and variance; a counter of eight bytes
    assert price.flops == 2 * 12 * 5


def test_the_latencies_of_several_networks_are_measured_alternately() -> None:
    order = []

    class Sleeps(nn.Module):
        def __init__(self, name: str, seconds: float) -> None:
            super().__init__()
            self.name, self.seconds = name, seconds

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            order.append(self.name)
            time.sleep(self.seconds)
            return x

    times = _milliseconds({"a": Sleeps("a", 0.002), "b": Sleeps("b", 0.02)}, torch.zeros(1))
    assert order == ["a", "b"] * (LEAST + 1)
    assert times["a"] >= 2
    assert times["b"] >= 20


def test_the_cost_of_the_ensemble_is_the_sum_over_its_members(
    run: DistillationRun, digits: DataSplits, tmp_path: Path
) -> None:
    done = export_student(run, tmp_path, formats=["safetensors"])
    one = prices({"one": random_ensemble(digits, 1)}, (1, 8, 8), torch.device("cpu"))["one"]
    assert done.prices["ensemble"].parameters == 2 * one.parameters
    assert done.prices["ensemble"].flops == 2 * one.flops
    alone = export_student(
        DistillationRun(run.config, digits, run.network, "random"), tmp_path, formats=["safetensors"]
    )
    assert set(alone.prices) == {"student", WITH_RESIZE}


# --- the model card ---


def front_matter(card: str) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return front


def test_the_card_has_hugging_face_metadata(run: DistillationRun, exported: Path) -> None:
    front = front_matter((exported / "MODEL_CARD.md").read_text())
    assert front["license"] == "cc-by-4.0"
    assert "onnx" in front["tags"]
    figures = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert figures["accuracy"] == pytest.approx(evaluate(run.network, run.data.validation)["accuracy"], abs=1e-6)


def test_the_card_describes_only_existing_files(run: DistillationRun, exported: Path, tmp_path: Path) -> None:
    assert "import onnxruntime" in (exported / "MODEL_CARD.md").read_text()
    export_student(run, tmp_path, formats=["safetensors"])
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert "onnx" not in card
    assert "ensdistill predict ." in card


def test_the_card_states_data_and_classes_and_teachers_and_settings_and_limitations(
    run: DistillationRun, exported: Path
) -> None:
    card = (exported / "MODEL_CARD.md").read_text()
    for told in (
        "40 training images",
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "2 teachers",
        "tdiv_sdiv",
        "Limits",
        run.data.identity,
    ):
        assert told in card
    assert "published under `cc-by-4.0`" in card


def test_without_a_license_the_card_states_that_no_license_was_given(run: DistillationRun, tmp_path: Path) -> None:
    export_student(run, tmp_path, formats=["safetensors"])
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert front_matter(card)["license"] == "other"
    assert "No license was stated for these weights" in card


def test_the_card_of_a_student_trained_without_distillation_mentions_no_teachers(
    digits: DataSplits, tmp_path: Path
) -> None:
    export_student(made(tiny_config("student.kind=single", preset="labels"), digits), tmp_path, formats=["safetensors"])
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert ", trained on labels only" in card
    assert "Training targets: labels only (no distillation)." in card


def test_the_card_and_the_result_contain_warnings_about_images_and_teachers_and_the_study(
    run: DistillationRun, ensemble: TeacherEnsemble, tmp_path: Path
) -> None:
    names = ("data", "teachers", "study")
    issues = {name: ConfigIssue((name,), f"{name} of <a>|b*") for name in names}
    warned = TeacherEnsemble(list(ensemble.networks), 10, ensemble.identity, [issues["teachers"]])
    suspicious = replace(run, data=replace(run.data, warnings=(issues["data"],)), ensemble=warned)
    done = export_student(
        suspicious, tmp_path, findings=StudyContext(warnings=[issues["study"]]), formats=["safetensors"]
    )
    section = (tmp_path / "MODEL_CARD.md").read_text().split("## Warnings")[1].split("##")[0]
    for name in names:
        assert f"{name}: {name} of \\<a\\>\\|b\\*" in section
        assert issues[name].as_row() in done.warnings


def test_the_card_contains_the_findings_of_the_study(run: DistillationRun, tmp_path: Path) -> None:
    rows = {"student": {"nll": [0.097, 0.093, 0.099, 0.1, 0.1048], "accuracy": 0.97}}
    findings = StudyContext(
        "digits", "007", "better than kd, 95 % interval [0.001, 0.009]", {"Test images, 5 seeds": rows}
    )
    export_student(run, tmp_path, findings=findings, formats=["safetensors"])
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert "better than kd, 95 % interval [0.001, 0.009]" in card
    assert "| student | 0.9700 | 0.0988 +- 0.0043 (n=5) |" in card.split("Test images, 5 seeds:")[1]


@pytest.mark.e2e
def test_the_example_program_in_the_card_runs_unchanged(exported: Path, run: DistillationRun, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (exported / "MODEL_CARD.md").read_text(), re.DOTALL)
    shutil.copy(exported / "student.onnx", tmp_path)
    Image.fromarray(run.data.validation.images[3, 0].numpy()).save(tmp_path / "image.png")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    log_p = predict(run.network, run.data.validation)[3]
    name, probability = done.stdout.split()
    assert name == str(int(log_p.argmax()))
    assert float(probability) == pytest.approx(float(log_p.max().exp()), rel=1e-4)


# --- the export command ---

SMALL = ["data.val_size=60", "model.width=4", "teachers.count=1", "teachers.training.epochs=2", "training.epochs=3"]
WORDS = [word for change in SMALL for word in ("--set", change)]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of preset kd, distilled and exported by the commands into `run` and `run/export`."""
    folder = tmp_path_factory.mktemp("commands")
    done = call("ensdistill", "distill", "kd", *WORDS, "--studies-dir", folder, "--out", folder / "run")
    assert done.code == 0, done.err
    done = process("ensdistill", "export", folder / "run", "--studies-dir", folder)
    (folder / "printed.txt").write_text(done.out)
    assert done.code == 0
    assert "warning: at chance: the student" in done.err
    return folder


@pytest.mark.e2e
def test_the_export_command_prints_only_files_and_differences_and_costs(studies: Path) -> None:
    printed = (studies / "printed.txt").read_text()
    lines = printed.splitlines()
    for name in NETWORKS:
        assert re.search(rf"{re.escape(name)} +│ +[\d.,]+ kB │ +\d\.\de[+-]\d\d", printed)
    assert re.search(r"│ ensemble +│ +[\d.]+ kB", printed)
    assert [line.split(":")[0] for line in lines[-2:]] == ["export", "try it"]
    assert [line[:26] for line in lines if line[:1] == "r"] == ["resize: probabilities for "]
    assert all(line[:1] in "┏┃┡│└fclrte" for line in lines)


@pytest.mark.e2e
def test_the_onnx_file_gives_the_same_accuracy_with_only_onnxruntime_and_numpy(studies: Path, tmp_path: Path) -> None:
    test = load_test(load_config(studies / "run" / "config.yaml").data)
    np.savez(tmp_path / "test.npz", images=test.images.numpy(), labels=test.labels.numpy())
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "ensdistill", "PIL", "sklearn", "scipy"):
            raise ImportError(f"{{name}} is not there")
sys.meta_path.insert(0, Refuse())
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({str(studies / "run" / "export" / "student.onnx")!r})
test = np.load({str(tmp_path / "test.npz")!r})
_, probabilities = session.run(None, {{"images": test["images"].transpose(0, 2, 3, 1)}})
print(repr(float((probabilities.argmax(1) == test["labels"]).mean())))
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = call("ensdistill", "evaluate", studies / "run", "--split", "test", "--json", "--studies-dir", studies)
    assert len(test) == 700
    assert float(done.stdout) == json.loads(told.out)["test"]["accuracy"]


def test_exported_settings_reproduce_the_same_student(studies: Path) -> None:
    words = (studies / "run" / "export" / "config.yaml", "--studies-dir", studies, "--out", studies / "again")
    assert call("ensdistill", "distill", *words).code == 0
    weights, again = (load_file(studies / name / "student.safetensors") for name in ("run/export", "again"))
    assert set(weights) == set(again)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_run_is_found_by_its_folder_or_by_its_settings_or_by_an_exported_student(
    studies: Path, tmp_path: Path
) -> None:
    for n, name in enumerate(("run", "run/config.yaml", "run/export", "run/export/config.yaml")):
        words = (
            studies / name,
            "--studies-dir",
            studies,
            "--out",
            tmp_path / str(n),
            "--formats",
            "safetensors",
            "--json",
        )
        done = call("ensdistill", "export", *words)
        assert done.code == 0, done.err
        result = json.loads(done.out)
        assert result["differences"] == {"student.safetensors": 0.0}
        assert result["prices"]["student"]["milliseconds"].keys() == {"1", "128"}


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    done = call("ensdistill", "export", tmp_path)
    assert (done.code, "no config.yaml in this folder" in done.err) == (2, True)


def test_if_the_teachers_are_missing_only_the_student_is_evaluated(studies: Path, tmp_path: Path) -> None:
    words = ("--studies-dir", tmp_path, "--out", tmp_path / "out", "--formats", "safetensors")
    done = call("ensdistill", "export", studies / "run", *words)
    assert done.code == 0, done.err
    assert "trains them" in done.out
    assert "ensemble │" not in done.out


def test_a_given_ensemble_is_not_used_for_a_run_that_was_trained_with_different_teachers(
    studies: Path, ensemble: TeacherEnsemble
) -> None:
    config = load_config(studies / "run" / "config.yaml")
    opened = load_run(config, load_data(config.data), studies / "run" / "student.safetensors", ensemble)
    assert opened.ensemble is None
    assert not isinstance(opened.network, CombinedClassifier)
