"""Teachers trained as Ray tasks: the same teachers in parallel, also after failures; inputs passed to workers."""

import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch

from ensdistill import Config, DataSplits, DivergedError, EnsdistillError, get_ensemble, load_config, load_data
from ensdistill.data import Digits
from ensdistill.errors import ConfigError, OutOfMemoryError
from ensdistill.runtime.weights import fingerprint
from ensdistill_tune.execution.shared_inputs import SharedData
from ensdistill_tune.execution.teacher_tasks import gpus_of_teacher, train_side_by_side
from ensdistill_tune.study.study_config import Resources, StudyConfig

SMALL = {"kind": "convnet", "width": 2, "blocks": 1}
HERE = "tests.integration.ray.misbehaving"


@pytest.fixture(scope="module", autouse=True)
def two_slots() -> Iterator[None]:
    """Runs Ray with two slots, whatever the number of cores."""
    ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data(settings().data)


def settings(*models: dict[str, Any], epochs: int = 2) -> Config:
    """Returns a config with one teacher for each of the models."""
    changes = ["data.train_size=60", "data.val_size=100", "teachers.training.batch_size=20"]
    changes += [f"teachers.training.epochs={epochs}", f"teachers.count={max(1, len(models))}"]
    return load_config("kd", [*changes, f"teachers.models={list(models)}"])


def misbehaving(name: str, **arguments: Any) -> dict[str, Any]:
    return {"kind": "custom", "path": f"{HERE}:{name}", "arguments": arguments}


def by_tasks(config: Config, data: DataSplits, store: Path, *progress: Any, **given: float) -> Any:
    """Returns the ensemble, with its teachers trained as tasks."""
    train = partial(train_side_by_side, given=Resources(**given), device="auto")
    return get_ensemble(config, data, store, *progress, train=train)


def weights(store: Path) -> dict[str, str]:
    """Returns a fingerprint of the weights of every finished teacher."""
    return {file.parent.name: fingerprint(file) for file in store.glob("*/network.safetensors")}


def test_teachers_trained_in_ray_tasks_equal_those_trained_in_one_process_bit_for_bit(
    tmp_path: Path, digits: DataSplits
) -> None:
    config = settings(SMALL, {**SMALL, "width": 6}, {**SMALL, "blocks": 2})
    alone = get_ensemble(config, digits, tmp_path / "alone")
    together = by_tasks(config, digits, tmp_path / "student_aggregation")
    assert len(weights(tmp_path / "alone")) == 3
    assert weights(tmp_path / "student_aggregation") == weights(tmp_path / "alone")
    assert together.identity == alone.identity


def test_two_teachers_are_trained_at_the_same_time(tmp_path: Path, digits: DataSplits) -> None:
    (tmp_path / "meeting").mkdir()
    either = misbehaving("one_of_two", meeting=str(tmp_path / "meeting"))
    assert len(by_tasks(settings(either, either), digits, tmp_path / "store")) == 2


def test_teachers_trained_in_ray_tasks_report_every_epoch_as_in_a_single_process(
    tmp_path: Path, digits: DataSplits
) -> None:
    config, told = settings(SMALL, SMALL, epochs=3), list[tuple[int, int]]()
    by_tasks(config, digits, tmp_path, lambda *report: told.append(report))
    assert sorted(told) == [(teacher, epoch) for teacher in range(2) for epoch in (1, 2, 3)]
    assert [epoch for teacher, epoch in told if teacher == 1] == [1, 2, 3]
    told.clear()
    by_tasks(config, digits, tmp_path, lambda *report: told.append(report))
    assert told == [(0, 3), (1, 3)]


def test_a_diverging_teacher_is_named_in_the_error_and_finished_teachers_are_kept(
    tmp_path: Path, digits: DataSplits
) -> None:
    config = settings(SMALL, misbehaving("NotFinite"))
    with pytest.raises(
        DivergedError, match=r"teacher 2: the loss became nan.* lower teachers\.training\.optimizer\.lr"
    ) as caught:
        by_tasks(config, digits, tmp_path, cpus=2)  # trained one after another
    assert type(caught.value) is DivergedError
    assert weights(tmp_path) == weights_of(settings(SMALL), digits, tmp_path / "alone")


def weights_of(config: Config, data: DataSplits, store: Path) -> dict[str, str]:
    get_ensemble(config, data, store)
    return weights(store)


def test_if_a_teacher_runs_out_of_memory_the_error_names_the_teacher_and_the_setting_to_lower(
    tmp_path: Path, digits: DataSplits
) -> None:
    with pytest.raises(OutOfMemoryError, match=r"^teacher 1: out of memory: .* lower teachers\.training\.batch_size$"):
        by_tasks(settings(misbehaving("Greedy", images=20)), digits, tmp_path)


def test_a_teacher_whose_process_is_killed_is_trained_again(tmp_path: Path, digits: DataSplits) -> None:
    config = settings(misbehaving("deadly", flag=str(tmp_path / "flag"), times=1), SMALL)
    by_tasks(config, digits, tmp_path / "store", max_retries=1)
    assert (tmp_path / "flag").read_text() == "xxx"  # killed, then trained, then loaded here
    assert weights(tmp_path / "store") == weights_of(config, digits, tmp_path / "alone")


def test_a_teacher_whose_process_dies_repeatedly_is_named_in_the_error(tmp_path: Path, digits: DataSplits) -> None:
    config = settings(SMALL, misbehaving("deadly", flag=str(tmp_path / "flag"), times=9))
    with pytest.raises(EnsdistillError, match="teacher 2: its process died"):
        by_tasks(config, digits, tmp_path / "store", max_retries=1)
    assert (tmp_path / "flag").read_text() == "xx"


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # nor is it modified
def test_workers_share_the_memory_of_the_images_and_training_does_not_change_the_images(
    tmp_path: Path, digits: DataSplits
) -> None:
    shared = ray.put(SharedData.of(digits, Digits(), Path()))
    one, two = ray.get(shared), ray.get(shared)
    for part in ("train", "validation", "unlabeled"):
        for mine, yours in zip(one.arrays[part], two.arrays[part], strict=True):
            assert np.shares_memory(mine, yours)
        images = getattr(one.to("cpu"), part).images
        assert torch.equal(images, getattr(digits, part).images)
        assert np.shares_memory(images.numpy(), one.arrays[part][0])
    assert (one.identity, one.class_names) == (digits.identity, digits.class_names)
    get_ensemble(settings(SMALL), one.to("cpu"), tmp_path)
    assert torch.equal(one.to("cpu").train.images, digits.train.images)


def test_an_object_pickled_in_the_driver_equals_its_copy_unpickled_in_a_worker() -> None:
    study = StudyConfig.model_validate({"search": {"loss.temperature": {"uniform": [1, 4]}}, "baselines": ["kd"]})

    @ray.remote
    def read(packed: bytes) -> Any:
        found = pickle.loads(packed)  # noqa: S301 - made three lines further down
        return type(found).__module__, found.num_trials, found

    module, total, again = ray.get(read.remote(pickle.dumps(study)))
    assert (module, total) == ("ensdistill_tune.study.study_config", study.num_trials)
    assert type(again) is StudyConfig
    assert again == study


@pytest.mark.parametrize(
    ("device", "here", "given", "expected"),
    [
        ("auto", "cpu", 0, 0),
        ("auto", "cpu", 0.5, 0.5),  # this process has no GPU, but other nodes of the cluster have
        ("auto", "cuda", 0, 1),
        ("cuda:1", "cuda", 0.25, 0.25),
        ("cpu", "cpu", 0.5, 0),
    ],
)
def test_a_teacher_gets_the_gpu_share_of_a_trial_or_one_gpu_if_that_share_is_zero_and_data_are_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, here: str, given: float, expected: float
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    assert gpus_of_teacher(data_on(here), Resources(gpus=given), device) == expected


def test_a_missing_gpu_is_reported_immediately() -> None:
    with pytest.raises(ConfigError, match=r"--device auto: .*use --device cpu"):
        gpus_of_teacher(data_on("cuda"), Resources(), "auto")


def data_on(device: str) -> Any:
    images = SimpleNamespace(device=torch.device(device))
    return SimpleNamespace(train=SimpleNamespace(images=images))


LONG = """
preset: kd
config:
  data: {kind: digits, train_size: 100, val_size: 100}
  teachers:
    count: 2
    models: [{kind: convnet, width: 2, blocks: 1}, {kind: convnet, width: 64}]
    training: {epochs: 300, batch_size: 10}
search:
  loss.temperature: {uniform: [1, 4]}
"""


def test_an_interrupt_stops_teacher_training_and_keeps_completed_teachers(tmp_path: Path) -> None:
    file, studies = tmp_path / "long.yaml", tmp_path / "studies"
    file.write_text(LONG)
    command = [sys.executable, "-m", "ensdistill_tune", "launch", str(file), "--studies-dir", str(studies)]
    study = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 120
        while not weights(studies / "teachers") and time.monotonic() < end:
            time.sleep(0.1)
        study.send_signal(signal.SIGINT)
        start = time.monotonic()
        output, _ = study.communicate(timeout=60)
    finally:
        study.kill()
    assert study.returncode == 130, output
    assert time.monotonic() - start < 30
    assert len(weights(studies / "teachers")) == 1
    assert not (studies / "long").exists()  # the name of the study is available again
