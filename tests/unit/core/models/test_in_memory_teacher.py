"""Networks in memory as teachers: identified by content, normalized as requested, and refused with clear errors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensdistill import (
    Config,
    DataSplits,
    Distiller,
    TeacherEnsemble,
    distill_to_directory,
    get_ensemble,
    load_data,
    load_run,
)
from ensdistill.config import Teachers
from ensdistill.errors import ConfigError, DataError
from ensdistill.export.exporter import export_student
from ensdistill.models.in_memory_teacher import network_content

SHORT = {"epochs": 2, "batch_size": 32}


def linear(seed: int, inputs: int = 64, classes: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))


def config(*networks: nn.Module, **more: Any) -> Config:
    return Config(teachers=TeacherEnsemble(networks), training=SHORT, **more)


def test_networks_in_memory_can_be_teachers_without_further_settings(digits: DataSplits) -> None:
    teachers = TeacherEnsemble([linear(0), linear(1)])
    *_, last = Distiller(Config(training=SHORT), teachers, digits)
    assert last.val["nll"] < 3


def test_settings_with_networks_in_memory_give_the_same_student_as_an_ensemble_of_the_networks(
    digits: DataSplits, tmp_path: Path
) -> None:
    settings = config(linear(0), linear(1))
    found = get_ensemble(settings, digits, tmp_path)
    given = TeacherEnsemble([linear(0), linear(1)])
    images, _ = digits.train[slice(0, 8)]
    assert torch.equal(found(images), given(images))
    assert settings.teachers.total == 2
    results = [[epoch.val for epoch in Distiller(settings, ensemble, digits)] for ensemble in (found, given)]
    assert results[0] == results[1]


def test_the_identity_depends_on_the_order_of_the_networks_and_on_their_weights_and_layers() -> None:
    one, other = linear(0), linear(1)
    assert TeacherEnsemble([one, other]).identity == TeacherEnsemble([linear(0), linear(1)]).identity
    different = [[other, one], [one], [one, one], [one, linear(2)]]
    assert len({TeacherEnsemble(networks).identity for networks in [[one, other], *different]}) == 5
    assert network_content(nn.Sequential(one, nn.ReLU())) != network_content(nn.Sequential(one, nn.Sigmoid()))


def test_inputs_of_the_networks_are_normalized_with_the_given_mean_and_std(digits: DataSplits) -> None:
    images, _ = digits.train[slice(0, 8)]
    ensemble = TeacherEnsemble([linear(0)], mean=[0.3], std=[0.2])
    assert torch.allclose(ensemble(images)[0], linear(0)((images - 0.3) / 0.2), atol=1e-5)
    with pytest.raises(ValueError, match="mean and std: give both"):
        TeacherEnsemble([linear(0)], mean=[0.3])


def test_a_complete_run_with_networks_in_memory_writes_and_reads_its_files(tmp_path: Path) -> None:
    settings = config(linear(0), linear(1))
    data = load_data(settings.data)
    run = distill_to_directory(settings, tmp_path / "run", studies=tmp_path)
    assert run.result["teachers"]["ensemble"]["dee"] == 2
    assert not (tmp_path / "teachers").exists() or not any((tmp_path / "teachers").iterdir())
    again = load_run(settings, data, run.folder / "student.safetensors", get_ensemble(settings, data, tmp_path))
    assert again.ensemble is not None
    written = export_student(again, run.folder / "export", ["safetensors"])
    assert "2 networks" in (written.folder / "MODEL_CARD.md").read_text()


def test_the_error_in_another_process_states_how_to_pass_the_network_again(digits: DataSplits, tmp_path: Path) -> None:
    gone = Config(teachers=Teachers(count=0, networks=[{"content": "0000"}]), training=SHORT)  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"teachers\.networks: the network 0000 .*pass it again"):
        get_ensemble(gone, digits, tmp_path)


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such thing")


class Nan(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 10), torch.nan)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (linear(0, classes=7), r"teacher 1 returns \(100, 7\) for 100 images, not logits \(100, 10\)"),
        (
            linear(0, inputs=192),
            r"teacher 1 fails on images of shape 1x8x8 \(RuntimeError: .*provide a network for images",
        ),
        (nn.Sequential(linear(0), nn.Softmax(-1)), "teacher 1: its outputs are probabilities .* remove its softmax"),
        (Raises(), r"teacher 1 fails on images of shape 1x8x8 \(RuntimeError: no such thing\)"),
        (Nan(), "teacher 1: its outputs for 100 of 100 images are NaN or infinite"),
    ],
)
def test_a_network_that_cannot_be_a_teacher_is_refused_before_the_first_step(
    network: nn.Module, message: str, digits: DataSplits
) -> None:
    with pytest.raises(DataError, match=message):
        Distiller(Config(training=SHORT), TeacherEnsemble([network]), digits)


def test_outputs_between_0_and_1_like_those_of_a_sigmoid_cause_a_warning(digits: DataSplits) -> None:
    with pytest.warns(UserWarning, match="outputs of teacher 1 are all between 0 and 1, as after a sigmoid"):
        Distiller(Config(training=SHORT), TeacherEnsemble([nn.Sequential(linear(0), nn.Sigmoid())]), digits)


def test_invalid_settings_in_python_raise_a_config_error_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match=r"training\.epoch: no such setting \(did you mean epochs\?\)"):
        Config(training={"epoch": 3})
