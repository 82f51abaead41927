"""Cost estimates of a study: the arithmetic by hand, and the timing with a simulated clock."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from ensdistill import DataSplits, TeacherEnsemble, get_ensemble, load_data
from ensdistill.config import Config, build_config, presets
from ensdistill.data import Split
from ensdistill.errors import DivergedError
from ensdistill.models import Convnet, build
from ensdistill_tune.execution import cost_estimate as estimate
from ensdistill_tune.execution.cost_estimate import epoch_seconds, side_by_side
from ensdistill_tune.execution.disk_estimate import DiskEstimate, disk_estimate
from ensdistill_tune.formatting import duration
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import Resources, StudyConfig
from tests.commands import call
from tests.tiny import TINY, TinyStudy

SMALL = {
    "data": {"train_size": 40, "val_size": 30},
    "model": {"width": 2},
    "teachers": {"count": 3, "model": {"width": 2}, "training": {"epochs": 5, "batch_size": 10}},
    "training": {"epochs": 7, "batch_size": 10},
}
SPACE = {
    "preset": "kd",
    "config": SMALL,
    "search": {"student.kind": {"choice": ["single", "branches"]}},
    "baselines": ["kd", "latentbe"],
    "budget": {"trials": 10, "minutes": 30.0},
    "confirmation": {"top_k": 2, "seeds": 4},
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates epochs: 1 s for a student, 2 s with branches, 3 s for `latentbe`, and 0.5 s for a teacher."""

    def seconds(config: Config, ensemble: TeacherEnsemble, data: DataSplits) -> float:
        if not len(ensemble):
            return 0.5
        return {"single": 1.0, "branches": 2.0, "batch_ensemble": 3.0}[config.student.kind]

    monkeypatch.setattr(estimate, "epoch_seconds", seconds)
    monkeypatch.setattr(estimate, "side_by_side", lambda trial: 2)


def study(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate(SPACE | changes)


@pytest.mark.usefixtures("clock")
def test_the_cost_of_every_phase_is_its_number_of_epochs_times_the_epoch_duration(tmp_path: Path) -> None:
    cost, words = estimate.estimate(study(), tmp_path)
    assert cost is not None
    assert 1 < cost.epoch < 2  # the mean of eight random trials of both kinds
    assert (cost.shortest_epoch, cost.longest_epoch) == (1, 3)
    assert (cost.kinds, cost.kinds_timed) == (3, 3)  # the kind of baseline kd is also searched
    assert (cost.teachers, cost.teachers_there) == (3 * 5 * 0.5, 0)
    assert cost.search == pytest.approx((10 * cost.epoch + 1 + 3) * 7)
    assert cost.confirmation == pytest.approx((2 * cost.epoch + 1 + 3) * 4 * 7)
    assert cost.total == pytest.approx(7.5 + (cost.search + cost.confirmation) / 2)
    assert "one epoch of a trial took 1 s to 3 s on this machine (3 kinds of trials timed" in words
    assert "teachers: 3 x 5 epochs: about 7.5 s" in words
    assert "search, if no trial is stopped early: 12 trials of 7 epochs: about" in words
    assert "confirmation: at most 16 trials of 7 epochs: about" in words
    assert "with 2 in parallel" in words
    assert "budget.minutes ends search and confirmation after 30 min" in words


@pytest.mark.usefixtures("clock")
def test_trials_that_differ_only_in_learning_rate_and_temperature_are_timed_as_one_kind(tmp_path: Path) -> None:
    search = {"training.optimizer.lr": {"log_uniform": [0.01, 0.1]}, "loss.temperature": {"uniform": [1, 4]}}
    cost, _ = estimate.estimate(study(search=search, baselines=[]), tmp_path)
    assert cost is not None
    assert cost.kinds == 1


@pytest.mark.usefixtures("clock")
def test_disabled_phases_add_no_cost(tmp_path: Path) -> None:
    changes = {"confirmation": {"top_k": 0}, "baselines": [], "budget": {"trials": 1}}
    cost, words = estimate.estimate(study(**changes), tmp_path)
    assert cost is not None
    assert (cost.confirmation, cost.search) == (0, pytest.approx(7 * cost.epoch))
    assert "confirmation" not in words
    assert "budget.minutes" not in words


@pytest.mark.usefixtures("clock")
def test_the_cost_of_untimed_trial_kinds_is_estimated_from_the_mean_of_the_timed_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "PATIENCE", 0.0)
    cost, words = estimate.estimate(study(), tmp_path)
    assert cost is not None
    assert (cost.kinds, cost.kinds_timed) == (3, 1)
    assert cost.search == pytest.approx(12 * 7 * cost.longest_epoch)
    assert "(1 of 3 kinds of trials timed" in words


@pytest.mark.parametrize("broken", [["branches"], ["single", "branches", "batch_ensemble"]])
def test_a_kind_of_trial_that_cannot_be_timed_is_skipped_unless_no_kind_can_be_timed(
    broken: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(config: Config, ensemble: TeacherEnsemble, data: DataSplits) -> float:
        if len(ensemble) and config.student.kind in broken:
            raise DivergedError(1, 2, float("nan"))
        return 1.0

    monkeypatch.setattr(estimate, "epoch_seconds", seconds)
    if len(broken) == 3:
        with pytest.raises(DivergedError, match="epoch 1, step 2"):
            estimate.estimate(study(), tmp_path)
    else:
        cost, _ = estimate.estimate(study(), tmp_path)
        assert cost is not None
        assert (cost.kinds, cost.kinds_timed, cost.epoch) == (3, 2, 1)


@dataclass
class Tick:
    """The part of an epoch result that timing uses."""

    seconds: float


@pytest.mark.parametrize(("per_image", "expected_images"), [(1e-6, 4000), (1e-3, 400), (1.0, 10)])
def test_long_epochs_are_timed_partially_and_extrapolated(
    per_image: float, expected_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images take the same time; the timed part predicts the whole epoch and is as small as possible."""
    seen = []

    def counting(config: Config, ensemble: TeacherEnsemble, data: DataSplits) -> Iterator[Tick]:
        assert len(data.train) / 4000 == pytest.approx(len(data.validation) / 1000, abs=2e-3)
        seen.append(len(data.train))
        while True:
            yield Tick(per_image * (len(data.train) + len(data.validation)))

    monkeypatch.setattr(estimate, "distill", counting)
    noise = np.random.default_rng(0).integers(0, 256, (5000, 1, 2, 2), dtype=np.uint8)
    whole = Split(torch.from_numpy(noise), torch.zeros(5000, dtype=torch.long))
    data = DataSplits(whole.take(slice(4000)), whole.take(slice(1000)), whole, ("a", "b"), "none")
    config = build_config({"training": {"batch_size": 10}})
    assert epoch_seconds(config, TeacherEnsemble([], 2, "none"), data) == pytest.approx(per_image * 5000, rel=0.05)
    assert seen[0] == 10
    assert seen[-1] <= expected_images


def test_epochs_are_timed_at_a_learning_rate_at_which_no_loss_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    def noting(config: Config, ensemble: TeacherEnsemble, data: DataSplits) -> Iterator[Tick]:
        rates.append(config.training.optimizer.lr)
        while True:
            yield Tick(1.0)

    monkeypatch.setattr(estimate, "distill", noting)
    config = build_config(SMALL | {"training": {"batch_size": 10, "optimizer": {"lr": 100.0}}})
    assert epoch_seconds(config, TeacherEnsemble([], 10, "none"), load_data(config.data)) > 0
    assert set(rates) == {1e-6}


@pytest.mark.parametrize("preset", presets())
def test_every_preset_can_be_timed_with_untrained_teachers(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "ENOUGH", 1e-9)  # one step
    config = build_config({"preset": preset, **SMALL})
    data = load_data(config.data)
    assert 0 < epoch_seconds(config, estimate._untrained(config, data, Path()), data) < 60


@pytest.mark.usefixtures("clock")
def test_check_prints_size_and_cost_and_creates_no_files(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    shown = call("ensdistill-tune", "check", file, "--studies-dir", tmp_path / "studies")
    assert shown.code == 0, shown.err
    assert "5 axes: 2 continuous, 3 with 12 combinations" in shown.out
    assert "one epoch of a trial took" in shown.out
    assert "teachers: 2 x 4 epochs: about" in shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
    assert not ray.is_initialized()


@pytest.mark.usefixtures("clock")
def test_teachers_that_are_already_in_the_store_add_no_cost(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    config = load_study(file).base_config
    data = load_data(config.data)
    one = config.teachers.model_copy(update={"count": 1})
    get_ensemble(config.model_copy(update={"teachers": one}), data, tmp_path / "teachers")
    result = json.loads(call("ensdistill-tune", "check", file, "--studies-dir", tmp_path, "--json").out)
    assert result["size"] == {"axes": 5, "continuous": 2, "combinations": 12}
    assert result["cost"]["teachers_there"] == 1
    get_ensemble(config, data, tmp_path / "teachers")
    result = json.loads(call("ensdistill-tune", "check", file, "--studies-dir", tmp_path, "--json").out)
    assert (result["cost"]["teachers"], result["cost"]["teachers_there"]) == (0, 2)
    assert "2 already in the store" in call("ensdistill-tune", "check", file, "--studies-dir", tmp_path).out


def test_check_prints_warnings_about_images_and_teachers_from_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (80, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.arange(80) % 2, notes=np.zeros(3))
    small = {"kind": "convnet", "width": 2, "blocks": 1}
    data = load_data(build_config({"preset": "kd", "data": {"kind": "npz", "path": str(tmp_path / "a.npz")}}).data)
    torch.save(build(Convnet(width=2, blocks=1), data, 0).state_dict(), tmp_path / "theirs.pt")
    settings = SMALL | {
        "data": {"kind": "npz", "path": "a.npz"},
        "teachers": {"count": 0, "checkpoints": [{"path": "theirs.pt", "model": small}]},
    }
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"preset": "kd", "config": settings, "search": {"seed": {"choice": [1, 2]}}}))
    done = call("ensdistill-tune", "check", file, "--studies-dir", tmp_path, "--json")
    paths = [row["path"] for row in json.loads(done.out)["warnings"]]
    assert (["data", "path"] in paths, ["teachers"] in paths) == (True, True)
    assert "warning: data.path: 1 array not used: notes" in done.err
    assert "may have been trained on the 8 validation images" in done.err


def test_without_an_estimate_no_images_are_read(tmp_path: Path) -> None:
    file = tmp_path / "far.yaml"
    file.write_text("config: {data: {kind: cifar10, path: /nowhere}}\nsearch: {seed: {choice: [1, 2]}}\n")
    done = call("ensdistill-tune", "check", file, "--no-estimate", "--json")
    assert (done.code, json.loads(done.out)["cost"]) == (0, None)
    missing = call("ensdistill-tune", "check", file)
    assert missing.code == 2
    assert "2 different settings" in missing.out  # errors in the file itself are reported first
    assert "data.path: /nowhere contains neither" in missing.err


def test_an_estimate_downloads_no_images(tmp_path: Path) -> None:
    data = {"kind": "cifar10", "path": str(tmp_path), "download": True}
    cost, words = estimate.estimate(study(config={"data": data}), tmp_path)
    assert cost is None
    assert "the images are not downloaded yet" in words
    assert list(tmp_path.iterdir()) == []


def test_a_missing_gpu_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cost, words = estimate.estimate(study(resources={"gpus": 0.5}), tmp_path)
    assert cost is None
    assert "trials require a GPU (resources.gpus), but this machine has none" in words


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"), [(1, 0, 8), (3, 0, 2), (0.5, 0, 16), (1, 0.5, 4), (4, 0.25, 2), (9, 0, 0), (1, 3, 0)]
)
def test_by_default_as_many_trials_as_possible_run_in_parallel(
    cpus: float, gpus: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert side_by_side(Resources(cpus=cpus, gpus=gpus)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0531, "0.053 s"),
        (7.5, "7.5 s"),
        (12.4, "12 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (9000, "2.5 h"),
    ],
)
def test_durations_are_printed_in_readable_units(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_the_disk_estimate_is_close_to_the_size_of_the_study_files(tiny: TinyStudy) -> None:
    data = load_data(load_study(tiny.file).base_config.data)
    found = disk_estimate(load_study(tiny.file), data, tiny.studies, 0, 1)
    students = [file.stat().st_size for file in tiny.home.glob("trials/*/student.safetensors")]
    teachers = [file.stat().st_size for file in tiny.studies.glob("teachers/*/network.safetensors")]
    headers = 4500  # bytes of a file that describe its tensors and the student
    assert max(students) - headers < found.students / (10 + 4 * 2) <= max(students)
    assert sum(teachers) - 2 * headers < found.teachers <= sum(teachers)
    assert found.total == found.images + found.teachers + found.students + found.checkpoints
    assert found.in_words().startswith("disk: a few MiB; ")
    large = DiskEstimate(images=0, teachers=300 << 20, students=600 << 20, checkpoints=124 << 20, free=1 << 30)
    parts = "(teachers 300 MiB, students 600 MiB, checkpoints of running trials 124 MiB)"
    assert large.in_words() == f"disk: at most about 1.0 GiB {parts}; 1.0 GiB is free"
    assert replace(large, free=1 << 20).in_words().endswith("; 1 MiB is free, which is not enough")
    keep = load_study(tiny.file, ["resources.num_to_keep=3"])
    assert disk_estimate(keep, data, tiny.studies, 2, 1).students == found.students // 18 * (3 + 2 + 8)
    assert disk_estimate(keep, data, tiny.studies, 2, 1).teachers == 0
