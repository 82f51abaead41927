"""The training loop: exact resuming, reproducible results, errors, and no side effects."""

import copy
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.testing import assert_close

import ensdistill.evaluation.predict
from ensdistill.config import Config
from ensdistill.data import DataSplits, Split, load_data
from ensdistill.errors import ConfigError, DataError, DivergedError
from ensdistill.evaluation.predict import evaluate, predict
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.students.base import Student
from ensdistill.methods.students.single_student import SingleStudent
from ensdistill.models import build
from ensdistill.runtime.randomness import RandomStreams, derive_seed, temporary_seed
from ensdistill.training.loop import EpochResult, distill
from ensdistill.training.new_student import new_student
from tests.unit.core.core_stand_ins import LATENTBE_EMA, random_ensemble, tiny_config

CONFIGS = {
    "kd": tiny_config(),
    "latentbe": tiny_config(*LATENTBE_EMA, preset="latentbe"),
    "gaussian": tiny_config("perturbation.kind=gaussian", "averaging.kind=ema", "averaging.start=0.5"),
    "mixup of augmented images": tiny_config(
        "perturbation.kind=mixup",
        "training.augmentation={crop_scale: 0.3, color_jitter: 0.3, rand_augment: 2, erasing: 0.5}",
    ),
    "recipe": tiny_config(
        "training.optimizer.kind=adamw",
        "training.optimizer.decay_norms_and_biases=false",
        "training.gradient_accumulation=2",
        "training.label_smoothing=0.1",
        "training.class_weights=balanced",
        "training.warmup_steps=3",
        "training.select_epoch=best_accuracy",
        "model.freeze=['0', '1']",
        "model.body_lr=0.5",
        "averaging.kind=lawa",
    ),
}


def numbers(epoch: EpochResult) -> tuple[Any, ...]:
    """Returns all results of an epoch except its duration."""
    return epoch.number, epoch.loss, epoch.val, epoch.subnetworks


def run(config: Config, ensemble: TeacherEnsemble, data: DataSplits) -> list[tuple[Any, ...]]:
    return [numbers(epoch) for epoch in distill(config, ensemble, data)]


def trained(config: Config, ensemble: TeacherEnsemble, data: DataSplits, epochs: int | None = None) -> nn.Module:
    """Returns the student after the given number of epochs, or after all."""
    run = distill(config, ensemble, data)
    list(islice(run, epochs))
    return run.student()


@pytest.fixture(scope="module")
def whole_runs(ensemble: TeacherEnsemble, digits: DataSplits) -> dict[str, list[tuple[Any, ...]]]:
    """The results of an uninterrupted run of each config, and its final weights."""
    runs = {}
    for name, config in CONFIGS.items():
        distiller = distill(config, ensemble, digits)
        epochs = [numbers(epoch) for epoch in distiller]
        runs[name] = [*epochs, {key: t.clone() for key, t in distiller.student().state_dict().items()}]
    return runs


# --- resuming ---


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_resumed_after_any_epoch_equals_an_uninterrupted_run_bit_for_bit(
    name: str, stop: int, tmp_path: Path, whole_runs: dict[str, list], ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    first = distill(CONFIGS[name], ensemble, digits)
    for epoch in first:
        if epoch.number == stop:
            first.save_checkpoint(tmp_path / "checkpoint.pt")
            break
    torch.rand(7)  # other random numbers in between have no effect
    second = distill(CONFIGS[name], ensemble, digits, resume=tmp_path / "checkpoint.pt")
    resumed = [numbers(epoch) for epoch in second]
    *expected, weights = whole_runs[name]
    assert resumed == expected[stop:]
    shipped = second.student().state_dict()
    assert all(torch.equal(shipped[key], tensor) for key, tensor in weights.items())


def test_resuming_a_finished_run_trains_no_further_epochs_and_returns_the_same_student(
    tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    whole = distill(tiny_config(), ensemble, digits)
    *_, last = whole
    assert last.last
    whole.save_checkpoint(tmp_path / "checkpoint.pt")
    again = distill(tiny_config(), ensemble, digits, resume=tmp_path / "checkpoint.pt")
    assert list(again) == []
    assert evaluate(again.student(), digits.validation).items() <= last.val.items()


def test_epoch_results_do_not_change_after_they_are_returned(
    whole_runs: dict[str, list], ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    results = list(distill(CONFIGS["kd"], ensemble, digits))
    assert [numbers(result) for result in results] == whole_runs["kd"][:-1]
    assert {field.name for field in fields(results[0])} == {
        *("number", "epochs", "loss", "val", "subnetworks", "seconds", "selected", "last")
    }  # no object that the run modifies later


def test_a_run_cannot_continue_after_an_error(digits: DataSplits) -> None:
    run = distill(tiny_config(), TeacherEnsemble([FailingTeacher(1)], 10, "failing"), digits)
    with pytest.raises(DivergedError):
        next(run)
    assert list(run) == []


@pytest.fixture
def checkpoint(tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits) -> Path:
    run = distill(tiny_config(), ensemble, digits)
    next(run)
    run.save_checkpoint(tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def test_saving_a_checkpoint_leaves_no_temporary_file(checkpoint: Path) -> None:
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.parametrize("keep", [0, 100, 3000, -1])
def test_a_truncated_checkpoint_is_named_in_the_error(
    checkpoint: Path, keep: int, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"checkpoint\.pt"):
        distill(tiny_config(), ensemble, digits, resume=checkpoint)


@pytest.mark.parametrize("content", [{"epoch": 1}, [1, 2], {"identity": 3}], ids=str)
def test_an_invalid_checkpoint_is_named_in_the_error(
    checkpoint: Path, content: Any, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    torch.save(content, checkpoint)
    with pytest.raises(DataError, match=r"checkpoint\.pt"):
        distill(tiny_config(), ensemble, digits, resume=checkpoint)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_no_code_in_a_checkpoint_is_executed(checkpoint: Path, ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    mark = checkpoint.with_name("executed")
    torch.save({"identity": {}, "epoch": Evil(mark)}, checkpoint)
    with pytest.raises(DataError):
        distill(tiny_config(), ensemble, digits, resume=checkpoint)
    assert not mark.exists()


def test_a_missing_checkpoint_is_named_in_the_error(
    tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    with pytest.raises(DataError, match=r"nothing\.pt"):
        distill(tiny_config(), ensemble, digits, resume=tmp_path / "nothing.pt")


def test_a_checkpoint_with_different_settings_is_refused(
    checkpoint: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match="different settings"):
        distill(tiny_config("training.optimizer.lr=0.2"), ensemble, digits, resume=checkpoint)


def test_a_checkpoint_with_a_different_ensemble_is_refused(checkpoint: Path, digits: DataSplits) -> None:
    other = random_ensemble(digits)
    other.identity = "other"
    with pytest.raises(ConfigError, match="different teachers"):
        distill(tiny_config(), other, digits, resume=checkpoint)


def test_a_checkpoint_with_different_data_is_refused(
    checkpoint: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match="different data"):
        distill(tiny_config(), ensemble, replace(digits, identity="other"), resume=checkpoint)


# --- seeds ---


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_seed_gives_the_same_metrics(
    name: str, whole_runs: dict[str, list], ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    assert run(CONFIGS[name], ensemble, digits) == whole_runs[name][:-1]


def test_a_different_seed_gives_different_metrics(
    whole_runs: dict[str, list], ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    other = run(tiny_config("seed=1"), ensemble, digits)
    assert all(a[1:] != b[1:] for a, b in zip(other, whole_runs["kd"], strict=False))


def test_random_streams_depend_only_on_the_seed_and_the_purpose_and_the_epoch() -> None:
    cases = [(seed, purpose, epoch) for seed in range(3) for purpose in ("order", "noise") for epoch in range(3)]
    draws = {derive_seed(*case) for case in cases}
    assert len(draws) == len(cases)
    assert all(0 <= draw < 2**63 for draw in draws)
    one, two = (RandomStreams.of(1, "order", 2, torch.device("cpu")) for _ in range(2))
    assert torch.equal(torch.rand(3, generator=one.host), torch.rand(3, generator=two.host))
    assert not torch.equal(torch.rand(3, generator=one.host), torch.rand(3, generator=one.device))


# --- metrics and weights ---


def test_full_batch_distillation_equals_an_explicit_training_loop(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    # One batch per epoch, so that the order of the images does not matter.
    overrides = ("training.batch_size=40", "training.lr_schedule=constant", "training.warmup_epochs=0")
    config = tiny_config(*overrides)
    student = build(config.model, digits, config.seed).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    x, y = digits.train[slice(None)]
    losses = []
    for _ in range(3):
        s, t = student(x), ensemble(x)
        p = (t / 4).softmax(-1).mean(0)
        distillation = 16 * F.kl_div((s / 4).log_softmax(-1), p, reduction="batchmean")
        loss = 0.1 * F.cross_entropy(s, y) + 0.9 * distillation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    epochs = list(distill(config, ensemble, digits))
    assert [epoch.loss for epoch in epochs] == pytest.approx(losses, abs=1e-4)
    assert epochs[-1].val["nll"] == pytest.approx(evaluate(student, digits.validation)["nll"], abs=1e-3)


def test_an_incomplete_last_batch_is_dropped(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    # 40 images in batches of 30: one step per epoch, so the first epoch (all warm-up from 0) keeps the weights.
    config = tiny_config("training.batch_size=30", "training.epochs=1")
    run = distill(config, ensemble, digits)
    next(run)
    start = build(config.model, digits, config.seed).state_dict()
    weights = {name: tensor for name, tensor in run.student().state_dict().items() if name.endswith("weight")}
    assert all(torch.equal(start[name], tensor) for name, tensor in weights.items())


def test_validation_metrics_are_those_of_the_returned_student(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    for config in CONFIGS.values():
        run = distill(config, ensemble, digits)
        for epoch in run:
            assert evaluate(run.student(), digits.validation).items() <= epoch.val.items()


def test_the_returned_student_equals_its_stored_file_bit_for_bit(
    ensemble: TeacherEnsemble, digits: DataSplits, tmp_path: Path
) -> None:
    config = CONFIGS["latentbe"]
    student, read = trained(config, ensemble, digits), build(config.model, digits, 0, config.loss.head()).eval()
    save_file({name: t.contiguous() for name, t in student.state_dict().items()}, tmp_path / "student.safetensors")
    read.load_state_dict(load_file(tmp_path / "student.safetensors"))
    assert torch.equal(predict(student, digits.validation), predict(read, digits.validation))
    assert [t.stride() for t in student.parameters()] == [t.stride() for t in read.parameters()]


def test_the_returned_student_is_in_evaluation_mode(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    for config in CONFIGS.values():
        student = trained(config, ensemble, digits, epochs=1)
        assert not any(module.training for module in student.modules())


def test_evaluating_an_epoch_does_not_change_the_next_epoch(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    # The perturbation uses the running statistics of the student in training mode, so a change would be visible.
    overrides = ("student.subnetworks=2", "perturbation.step_size=0.1")
    refreshed, plain = (
        distill(tiny_config(*overrides, f"averaging.refresh_batchnorm={on}", preset="latentbe"), ensemble, digits)
        for on in ("true", "false")
    )
    assert [epoch.loss for epoch in refreshed] == [epoch.loss for epoch in plain]


class Recorder:
    """An average that records its inputs."""

    kind, refresh_batchnorm = "recorder", False

    def __init__(self) -> None:
        self.progress: list[float] = []
        self.weights: list[Tensor] = []
        self.ends: list[tuple[float, float]] = []

    def __call__(self, student: Student) -> "Recorder":
        return self

    def update(self, student: Student, progress: float) -> None:
        self.progress.append(progress)
        self.weights.append(next(student.parameters()).detach().clone())

    def epoch_ended(self, student: Student, progress: float, judge: Any) -> None:
        self.ends.append((progress, judge(student)["nll"]))

    def averaged(self, student: Student) -> Student:
        return student


def test_the_average_receives_the_validation_metrics_after_every_epoch(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    recorder = Recorder()
    epochs = list(distill(tiny_config().model_copy(update={"averaging": recorder}), ensemble, digits))
    assert recorder.ends == [(pytest.approx(epoch.number / 3), epoch.val["nll"]) for epoch in epochs]


def test_the_average_is_updated_after_every_step(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    recorder = Recorder()
    config = tiny_config().model_copy(update={"averaging": recorder})
    run = distill(config, ensemble, digits)
    for _ in run:
        assert torch.equal(recorder.weights[-1], next(run.student().parameters()))
    assert recorder.progress == pytest.approx([(n + 1) / 12 for n in range(12)])
    assert len({tuple(weights.flatten().tolist()) for weights in recorder.weights}) == 12


def test_the_ema_weights_are_evaluated_and_exported(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    recorder = Recorder()
    list(distill(tiny_config().model_copy(update={"averaging": recorder}), ensemble, digits))
    shares = [0.9 ** (11 - n) for n in range(12)]
    expected = sum(share * w for share, w in zip(shares, recorder.weights, strict=True)) / sum(shares)
    student = trained(tiny_config("averaging.kind=ema", "averaging.decay=0.9"), ensemble, digits)
    assert_close(next(student.parameters()).detach(), expected, atol=1e-5, rtol=1e-4)


def test_initial_weights_depend_only_on_the_seed(digits: DataSplits) -> None:
    def weights(seed: int) -> Tensor:
        return torch.cat([p.detach().flatten() for p in build(tiny_config().model, digits, seed).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_returned_student_is_a_copy(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    for config in CONFIGS.values():
        expected = run(config, ensemble, digits)
        spoiled = []
        distiller = distill(config, ensemble, digits)
        for epoch in distiller:
            spoiled.append(numbers(epoch))
            with torch.no_grad():
                for p in distiller.student().parameters():
                    p.zero_()
        assert spoiled == expected


def test_subnetwork_metrics_of_a_single_student_equal_its_validation_metrics(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    assert all(epoch.subnetworks.items() <= epoch.val.items() for epoch in distill(tiny_config(), ensemble, digits))


def test_epochs_are_numbered_from_one(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    epochs = list(distill(tiny_config(), ensemble, digits))
    assert [(epoch.number, epoch.epochs, epoch.last) for epoch in epochs] == [
        (1, 3, False),
        (2, 3, False),
        (3, 3, True),
    ]


def test_predictions_do_not_depend_on_the_batch_size(
    ensemble: TeacherEnsemble, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(ensemble, digits.validation)
    monkeypatch.setattr(ensdistill.evaluation.predict, "BATCH", 7)
    assert_close(predict(ensemble, digits.validation), whole, atol=1e-5, rtol=1e-5)


def test_evaluation_preserves_the_training_mode_of_a_network(digits: DataSplits) -> None:
    network = build(tiny_config().model, digits, 0)
    before = copy.deepcopy(network.state_dict())
    for mode in (True, False):
        evaluate(network.train(mode), digits.validation)
        assert all(module.training == mode for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


# --- refreshing BatchNorm ---


def test_refreshed_batchnorm_has_the_statistics_of_the_training_images(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    config = tiny_config("averaging.refresh_batchnorm=true", "training.batch_size=40")
    student = trained(config, ensemble, digits, epochs=1)
    normalize, network = student
    x = digits.train[slice(None)][0]
    inner = network[0](normalize(x)).transpose(0, 1).flatten(1)
    assert_close(network[1].running_mean, inner.mean(1), atol=1e-5, rtol=1e-4)
    assert_close(network[1].running_var, inner.var(1), atol=1e-5, rtol=1e-4)


def test_batchnorm_uses_the_running_statistics_unless_they_are_refreshed(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    config = tiny_config("training.batch_size=40", "training.epochs=1")  # one step with learning rate 0
    student = trained(config, ensemble, digits, epochs=1)
    normalize, network = student
    inner = network[0](normalize(digits.train[slice(None)][0])).transpose(0, 1).flatten(1)
    assert_close(network[1].running_mean, 0.1 * inner.mean(1), atol=1e-5, rtol=1e-4)


def test_batchnorm_can_be_refreshed_with_a_last_batch_of_any_size(ensemble: TeacherEnsemble) -> None:
    overrides = ("data.train_size=41", "model.blocks=4", "averaging.refresh_batchnorm=true", "training.epochs=1")
    config = tiny_config(*overrides)
    data = load_data(config.data)
    assert len(list(distill(config, random_ensemble(data), data))) == 1


# --- errors ---


def test_a_batch_size_larger_than_the_training_set_is_refused_immediately(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size: 41 is more than the 40"):
        distill(tiny_config("training.batch_size=41"), ensemble, digits)


def test_too_many_blocks_for_the_image_size_cause_a_config_error(digits: DataSplits) -> None:
    with pytest.raises(ConfigError):
        list(distill(tiny_config("model.blocks=5"), random_ensemble(digits), digits))


class FailingTeacher(nn.Module):
    """Returns uniform logits, but NaN at one call only: when the images are evaluated again, no teacher is faulty."""

    def __init__(self, at_call: int) -> None:
        super().__init__()
        self.calls, self.at_call = 0, at_call

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.full((len(x), 10), float("nan") if self.calls == self.at_call else 0.0)


@pytest.mark.parametrize(("call", "epoch", "step"), [(1, 1, 1), (4, 1, 4), (5, 2, 1), (7, 2, 3)])
def test_a_nan_loss_ends_the_run_with_an_error_that_states_the_epoch_and_the_step(
    digits: DataSplits, call: int, epoch: int, step: int
) -> None:
    asked_at_every_step = tiny_config("training.augmentation.flip=true")
    run = distill(asked_at_every_step, TeacherEnsemble([FailingTeacher(call)], 10, "failing"), digits)
    assert [next(run).number for _ in range(epoch - 1)] == list(range(1, epoch))
    with pytest.raises(DivergedError, match=f"epoch {epoch}, step {step}") as caught:
        next(run)
    assert (caught.value.epoch, caught.value.step) == (epoch, step)


def test_a_diverging_learning_rate_ends_the_run(digits: DataSplits, ensemble: TeacherEnsemble) -> None:
    # Weight decay 1 at rate 100 multiplies every weight by -99 per step and overflows float32 after about 20 steps.
    overrides = (
        "training.optimizer.lr=100",
        "training.optimizer.weight_decay=1",
        "training.lr_schedule=constant",
        "training.epochs=10",
    )
    with pytest.raises(DivergedError) as caught:
        run(tiny_config(*overrides), ensemble, digits)
    assert not math.isfinite(caught.value.loss)


# --- no side effects ---


@pytest.mark.parametrize("name", CONFIGS)
def test_the_random_state_of_the_caller_is_unchanged(name: str, ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    run = distill(CONFIGS[name], ensemble, digits)
    for _ in run:
        run.student()
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_random_state_of_the_caller_does_not_affect_results(
    whole_runs: dict[str, list], ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    torch.manual_seed(321)
    assert run(CONFIGS["latentbe"], ensemble, digits) == whole_runs["latentbe"][:-1]


def test_a_seeded_block_restores_the_random_state_even_after_a_failure() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), temporary_seed(1, torch.device("cpu")):
        torch.rand(3) @ torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def threads_seen() -> Iterator[set[int]]:
    """Yields the set of CPU thread counts with which any network ran."""
    seen: set[int] = set()
    handle = register_module_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
    yield seen
    handle.remove()


def test_epochs_run_with_the_configured_number_of_threads_and_restore_the_previous_number(
    ensemble: TeacherEnsemble, digits: DataSplits, threads_seen: set[int]
) -> None:
    epochs = distill(tiny_config("training.threads=2", "training.epochs=2"), ensemble, digits)
    threads_seen.clear()
    assert torch.get_num_threads() == 1
    for _ in epochs:
        assert torch.get_num_threads() == 1
    assert threads_seen == {2}


def test_batchnorm_of_the_returned_student_is_refreshed_with_the_configured_number_of_threads(
    ensemble: TeacherEnsemble, digits: DataSplits, threads_seen: set[int]
) -> None:
    config = tiny_config("training.threads=2", "training.epochs=1", "averaging.refresh_batchnorm=true")
    run = distill(config, ensemble, digits)
    next(run)
    threads_seen.clear()
    run.student()
    assert threads_seen == {2}


def test_the_number_of_threads_is_restored_after_a_failure(digits: DataSplits) -> None:
    with pytest.raises(DivergedError):
        list(distill(tiny_config("training.threads=2"), TeacherEnsemble([FailingTeacher(1)], 10, "failing"), digits))
    assert torch.get_num_threads() == 1


def test_data_and_teachers_are_not_modified(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    images = digits.train.images.clone()
    weights = copy.deepcopy(ensemble.state_dict())
    run(CONFIGS["latentbe"], ensemble, digits)
    assert torch.equal(digits.train.images, images)
    assert all(torch.equal(weights[name], tensor) for name, tensor in ensemble.state_dict().items())


def test_distillation_does_not_read_the_test_images(
    whole_runs: dict[str, list], ensemble: TeacherEnsemble, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the test images were asked for")

    monkeypatch.setattr("ensdistill.data.load_test", refuse)
    assert {field.name for field in fields(DataSplits)} == {
        *("train", "validation", "unlabeled", "class_names", "identity", "warnings", "own_validation")
    }
    alone = DataSplits(digits.train, digits.validation, digits.unlabeled, digits.class_names, digits.identity)
    assert run(CONFIGS["kd"], ensemble, alone) == whole_runs["kd"][:-1]


# --- merging during training ---

MERGING = {
    "product_of_means": tiny_config(
        "student.subnetworks=2", "student.merge_after=0.5", "training.epochs=4", preset="latentbe"
    ),
    "mean_of_products": tiny_config(
        "student.subnetworks=2",
        "student.merge_after=0.5",
        "student.merge=mean_of_products",
        "student.bias=per_member",
        "student.factor_init=normal",
        "training.epochs=4",
        "averaging.kind=ema",
        "averaging.refresh_batchnorm=true",
        preset="latentbe",
    ),
}


def whole(
    config: Config, ensemble: TeacherEnsemble, data: DataSplits
) -> tuple[list[tuple[Any, ...]], dict[str, Tensor]]:
    """Returns all results of a run and its final weights."""
    run = distill(config, ensemble, data)
    return [numbers(epoch) for epoch in run], copy.deepcopy(run.student().state_dict())


def stopped(
    config: Config, ensemble: TeacherEnsemble, data: DataSplits, stop: int, path: Path
) -> tuple[list[tuple[Any, ...]], dict[str, Tensor]]:
    """Returns these results for the remaining epochs of a run that was stopped after an epoch and resumed."""
    first = distill(config, ensemble, data)
    for epoch in first:
        if epoch.number == stop:
            first.save_checkpoint(path)
            break
    torch.rand(7)
    second = distill(config, ensemble, data, resume=path)
    return [numbers(epoch) for epoch in second], copy.deepcopy(second.student().state_dict())


def assert_same_weights(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", MERGING)
def test_after_the_merge_the_student_is_one_network(
    name: str, tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    run = distill(MERGING[name], ensemble, digits)
    for epoch in run:
        run.save_checkpoint(tmp_path / "checkpoint.pt")
        saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert saved["merged"] == (epoch.number > 2)
        assert (epoch.subnetworks.items() <= epoch.val.items()) == (epoch.number > 2)
        assert len(saved["optimizer"]["param_groups"]) == (1 if epoch.number > 2 else 2)
    plain = build(MERGING[name].model, digits, 0).state_dict()
    assert {key: t.shape for key, t in run.student().state_dict().items()} == {key: t.shape for key, t in plain.items()}


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("name", MERGING)
def test_a_run_resumed_before_or_after_its_merge_equals_an_uninterrupted_run_bit_for_bit(
    name: str, stop: int, tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    epochs, weights = whole(MERGING[name], ensemble, digits)
    rest, resumed = stopped(MERGING[name], ensemble, digits, stop, tmp_path / "checkpoint.pt")
    assert rest == epochs[stop:]
    assert_same_weights(resumed, weights)


@pytest.mark.parametrize("name", MERGING)
def test_a_run_with_a_merge_is_reproducible(name: str, ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    assert run(MERGING[name], ensemble, digits) == run(MERGING[name], ensemble, digits)


def test_a_full_batch_run_with_a_merge_equals_an_explicit_loop(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    config = tiny_config(
        "student.subnetworks=2",
        "student.merge_after=0.5",
        "perturbation.kind=none",
        "training.epochs=4",
        "training.batch_size=40",
        "training.lr_schedule=constant",
        "training.warmup_epochs=0",
        preset="latentbe",
    )
    x, _ = digits.train[slice(None)]
    p = (ensemble(x) / 4).softmax(-1)
    student, losses = new_student(config, digits).train(), []
    for network, target in ((student, p), (student, p.mean(0, keepdim=True))):
        if target is not p:  # from here on, one network that learns from the mean of its teachers
            network = SingleStudent(student.merged()).train()
        optimizer = config.training.new_optimizer(network)
        for _ in range(2):
            loss = 16 * F.kl_div((network(x) / 4).log_softmax(-1), target, reduction="sum") / target.shape[:2].numel()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert [epoch.loss for epoch in distill(config, ensemble, digits)] == pytest.approx(losses, rel=1e-4)


def test_merging_before_the_first_epoch_equals_training_the_plain_network(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    merged = tiny_config("student.merge_after=0", "perturbation.kind=none", preset="latentbe")
    single = tiny_config("loss.kind=one_to_one", "loss.alpha=1")
    assert run(merged, ensemble, digits) == run(single, ensemble, digits)


def test_merging_at_the_end_does_not_change_the_training(
    whole_runs: dict[str, list], tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    config = tiny_config(*LATENTBE_EMA, "student.merge_after=1", preset="latentbe")
    run = distill(config, ensemble, digits)
    for epoch, expected in zip(run, whole_runs["latentbe"], strict=False):
        run.save_checkpoint(tmp_path / "checkpoint.pt")
        assert not torch.load(tmp_path / "checkpoint.pt", weights_only=True)["merged"]
        assert numbers(epoch) == expected


@pytest.mark.parametrize(
    ("share", "epoch"), [(0.0, 1), (0.01, 2), (0.2, 2), (0.3, 3), (0.6, 4), (0.8, 5), (0.81, None)]
)
def test_the_student_is_merged_before_the_first_epoch_at_or_after_the_configured_fraction(
    share: float, epoch: int | None, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    overrides = ("student.subnetworks=2", f"student.merge_after={share}", "training.epochs=5")
    config = tiny_config(*overrides, "student.factor_init=normal", "training.batch_size=40", preset="latentbe")
    merged = [one.subnetworks.items() <= one.val.items() for one in distill(config, ensemble, digits)]
    assert merged == [epoch is not None and number >= epoch for number in range(1, 6)]


def test_the_average_restarts_after_the_merge(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    # A mean over all epochs so far; in the first epoch after the merge, it consists only of the weights of this epoch.
    overrides = ("student.subnetworks=2", "student.merge_after=0.5", "training.epochs=4", "perturbation.kind=none")
    averages = (("averaging.kind=lawa", "averaging.window=4"), ("averaging.kind=none",))
    lawa, plain = (
        [epoch.val for epoch in distill(tiny_config(*overrides, *kind, *REFRESH, preset="latentbe"), ensemble, digits)]
        for kind in averages
    )
    assert [a == b for a, b in zip(lawa, plain, strict=True)] == [True, False, True, False]


# --- every average ---

REFRESH = ("averaging.refresh_batchnorm=true",)
AVERAGES = {
    "ema": ("averaging.kind=ema", "averaging.start=0.5"),
    "swa": ("averaging.kind=swa", "averaging.start=0.4"),
    "lawa": ("averaging.kind=lawa", "averaging.window=2"),
    "greedy_soup": ("averaging.kind=greedy_soup", "averaging.max_candidates=2", "averaging.metric=nll"),
}


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("name", AVERAGES)
def test_a_resumed_run_with_any_average_equals_an_uninterrupted_run_bit_for_bit(
    name: str, stop: int, tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    config = tiny_config(*AVERAGES[name])
    epochs, weights = whole(config, ensemble, digits)
    rest, resumed = stopped(config, ensemble, digits, stop, tmp_path / "checkpoint.pt")
    assert rest == epochs[stop:]
    assert_same_weights(resumed, weights)


def test_epoch_averages_equal_the_averaged_weights_of_a_plain_run(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    def first_layer(name: str) -> Tensor:
        return next(trained(tiny_config(*AVERAGES[name]), ensemble, digits).parameters()).detach()

    plain = distill(tiny_config(), ensemble, digits)
    ends = [next(plain.student().parameters()).detach().clone() for _ in plain]
    assert_close(first_layer("lawa"), (ends[1] + ends[2]) / 2)
    assert_close(first_layer("swa"), (ends[1] + ends[2]) / 2)  # after two thirds and at the end


def test_the_soup_is_never_worse_than_its_best_epoch(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    for metric, sign in (("accuracy", 1), ("nll", -1)):
        single = [epoch.val[metric] for epoch in distill(tiny_config(*REFRESH), ensemble, digits)]
        soup = ("averaging.kind=greedy_soup", f"averaging.metric={metric}")
        found = [epoch.val[metric] for epoch in distill(tiny_config(*soup), ensemble, digits)]
        assert all(sign * found[n] >= max(sign * value for value in single[: n + 1]) for n in range(3))


def sorted_by_class(data: DataSplits) -> DataSplits:
    """Returns training images sorted by class, as from a folder of images, with increasing brightness by class."""
    order = data.train.labels.argsort(stable=True)
    labels = data.train.labels[order]
    images = data.train.images[order] // 4 + (19 * labels).to(torch.uint8)[:, None, None, None]
    return replace(data, train=Split(images, labels))


@pytest.mark.parametrize("arranged", ["as drawn", "by class"])
@pytest.mark.parametrize("name", [*AVERAGES, "none"])
def test_refreshed_statistics_are_those_of_all_training_images(
    name: str, arranged: str, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    data = digits if arranged == "as drawn" else sorted_by_class(digits)
    config = tiny_config(*AVERAGES.get(name, ("averaging.kind=none", *REFRESH)), "training.optimizer.lr=0.01")
    normalize, network = trained(config, ensemble, data)
    with torch.no_grad():
        inner = network[0](normalize(data.train[slice(None)][0])).transpose(0, 1).flatten(1)
    assert_close(network[1].running_mean, inner.mean(1), atol=1e-5, rtol=1e-4)
    assert_close(network[1].running_var, inner.var(1), atol=0, rtol=0.25)  # the mean over batches of ten images


# --- unlabeled images ---


class Spy:
    """A loss that records the labels of every batch and has almost no gradient."""

    kind = "spy"

    def __init__(self) -> None:
        self.labels: list[list[int]] = []

    def head(self) -> None:
        return None

    def __call__(self, student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        self.labels.append(labels.tolist())
        return 1e-6 * student.square().mean()


class ReportFigure:
    """An identity perturbation that records the images of every batch as bytes."""

    kind, label_images = "shown", "perturbed"

    def __init__(self) -> None:
        self.images: list[list[bytes]] = []

    def __call__(self, x: Tensor, *_: Any) -> Tensor:
        self.images.append(as_bytes((x * 255).round().to(torch.uint8)))
        return x

    def with_labels(self, x: Tensor, labels: Tensor, *_: Any) -> tuple[Tensor, list[tuple[float, Tensor]]]:
        return self(x), [(1.0, labels)]


def as_bytes(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def batches(data: DataSplits, ensemble: TeacherEnsemble, *overrides: str) -> tuple[list[list[bytes]], list[list[int]]]:
    """Returns the images and labels of every batch of a run."""
    spy, shown = Spy(), ReportFigure()
    config = tiny_config(*overrides).model_copy(update={"loss": spy, "perturbation": shown})
    list(distill(config, ensemble, data))
    return shown.images, spy.labels


def with_unlabeled(data: DataSplits, count: int) -> DataSplits:
    return replace(data, unlabeled=Split(data.unlabeled.images[:count], data.unlabeled.labels[:count]))


def test_every_batch_ends_with_the_configured_number_of_unlabeled_images(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    images, labels = batches(digits, ensemble, "training.unlabeled_batch_size=5")
    known, unknown = set(as_bytes(digits.train.images)), set(as_bytes(digits.unlabeled.images))
    assert len(images) == 12
    for some, their_labels in zip(images, labels, strict=True):
        assert len(some) == len(their_labels) == 15
        assert set(some[:10]) <= known
        assert set(some[10:]) <= unknown
        assert min(their_labels[:10]) >= 0
        assert set(their_labels[10:]) == {-1}


@pytest.mark.parametrize(
    ("unlabeled", "a_batch"), [(7, 5), (7, 1), (7, 7), (7, 20), (1, 3), (100, 5)], ids=lambda n: str(n)
)
def test_all_unlabeled_images_are_used_before_any_is_repeated(
    unlabeled: int, a_batch: int, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    images, _ = batches(with_unlabeled(digits, unlabeled), ensemble, f"training.unlabeled_batch_size={a_batch}")
    for epoch in range(3):
        seen = Counter(image for some in images[4 * epoch : 4 * epoch + 4] for image in some[10:])
        counts = [seen[image] for image in as_bytes(digits.unlabeled.images[:unlabeled])]
        assert sum(counts) == 4 * a_batch
        assert max(counts) - min(counts) <= 1


def test_over_many_epochs_unlabeled_images_are_used_about_equally_often(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    overrides = ("training.unlabeled_batch_size=3", "training.epochs=50", "training.batch_size=20")
    images, _ = batches(with_unlabeled(digits, 20), ensemble, *overrides)
    seen = Counter(image for some in images for image in some[20:])
    assert sum(seen.values()) == 300
    assert len(seen) == 20
    assert sum((count - 15) ** 2 / 15 for count in seen.values()) < 43.8  # chi-square with 19 degrees of freedom, 0.1 %


def test_the_order_of_labeled_images_does_not_depend_on_unlabeled_images(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    with_them, _ = batches(digits, ensemble, "training.unlabeled_batch_size=5")
    without, _ = batches(digits, ensemble)
    assert [some[:10] for some in with_them] == without


def test_the_order_of_unlabeled_images_differs_between_epochs_and_seeds(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    few = with_unlabeled(digits, 20)
    one, again, other = (
        batches(few, ensemble, "training.unlabeled_batch_size=5", f"seed={seed}")[0] for seed in (0, 0, 1)
    )
    assert one == again
    orders = [[image for some in run[n : n + 4] for image in some[10:]] for run in (one, other) for n in (0, 4, 8)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert all(orders[a] != orders[b] for a in range(6) for b in range(a))


def test_unlabeled_batches_are_refused_immediately_if_there_are_no_unlabeled_images(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match=r"training\.unlabeled_batch_size: there are no unlabeled images; lower data"):
        distill(tiny_config("training.unlabeled_batch_size=1"), ensemble, with_unlabeled(digits, 0))


def test_a_split_without_unlabeled_images_is_accepted_if_no_unlabeled_images_are_used(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    assert run(tiny_config(), ensemble, with_unlabeled(digits, 0)) == run(tiny_config(), ensemble, digits)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_with_unlabeled_images_equals_an_uninterrupted_run_bit_for_bit(
    stop: int, tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    config = tiny_config("training.unlabeled_batch_size=5", preset="unikd")
    epochs, weights = whole(config, ensemble, digits)
    rest, resumed = stopped(config, ensemble, digits, stop, tmp_path / "checkpoint.pt")
    assert rest == epochs[stop:]
    assert_same_weights(resumed, weights)
