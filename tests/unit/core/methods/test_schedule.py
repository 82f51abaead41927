"""Settings that change during training: when they apply, errors, hashes, and runs branched from checkpoints."""

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ensdistill.training.teachers
from ensdistill.config import Config, build_config, flatten, load_config, presets, to_yaml
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError
from ensdistill.evaluation.predict import evaluate
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.perturbations import TDivSDiv
from ensdistill.methods.schedule import can_change
from ensdistill.models import build
from ensdistill.settings.validation import settings_table
from ensdistill.training.loop import distill
from ensdistill.training.teachers import teacher_config, teacher_hash
from tests.unit.core.core_stand_ins import LATENTBE_EMA, tiny_config

Settings = dict[str, Any]


def scheduled(config: Config, *changes: tuple[int, Settings]) -> Config:
    """Returns the same settings with only these changes."""
    tree = config.model_dump(mode="json", exclude={"schedule"})
    return build_config(tree | {"schedule": [{"after_epoch": after, "set": settings} for after, settings in changes]})


COOLER: Settings = {"loss.temperature": 2.0}
SLOWER: Settings = {"training.optimizer.lr": 0.01}


# --- when changes apply ---


def test_a_change_applies_from_the_next_epoch_to_the_end() -> None:
    config = scheduled(tiny_config("training.epochs=5"), (2, COOLER), (3, SLOWER))
    held = [config.at_epoch(epoch) for epoch in range(1, 6)]
    assert [one.loss.temperature for one in held] == [4.0, 4.0, 2.0, 2.0, 2.0]
    assert [one.training.optimizer.lr for one in held] == [0.05, 0.05, 0.05, 0.01, 0.01]


def test_a_later_change_of_the_same_setting_replaces_the_earlier_one() -> None:
    config = scheduled(tiny_config(), (1, COOLER | SLOWER), (2, {"loss.temperature": 8.0}))
    assert config.at_epoch(3) == tiny_config("loss.temperature=8", "training.optimizer.lr=0.01")


def test_settings_without_changes_are_the_same_in_every_epoch() -> None:
    assert tiny_config().at_epoch(1) == tiny_config().at_epoch(3) == tiny_config().prefix_until(3) == tiny_config()


def test_a_change_has_taken_effect_if_its_epoch_is_before_the_current_epoch() -> None:
    config = scheduled(tiny_config("training.epochs=5"), (2, COOLER), (4, SLOWER))
    taken = [[change.after_epoch for change in config.prefix_until(epoch).schedule] for epoch in range(6)]
    assert taken == [[], [], [], [2], [2], [2, 4]]


def test_loss_settings_and_perturbation_settings_and_the_learning_rate_can_change_but_kinds_cannot() -> None:
    names = {row.name for row in settings_table(Config) if can_change(row.name)}
    assert {"training.optimizer.lr", "loss.temperature", "perturbation.step_size", "perturbation.label_images"} < names
    assert {name.split(".")[0] for name in names - {"training.optimizer.lr"}} == {"perturbation", "loss"}
    assert not [name for name in names if name.endswith("kind")]


# --- errors ---

CANNOT = (
    "cannot change during training; only training.optimizer.lr and the settings of perturbation and loss (except kind) "
    "can"
)


def faults(*changes: Any, base: Config | None = None) -> list[str]:
    tree = (base or tiny_config("training.epochs=5")).model_dump(mode="json")
    with pytest.raises(ConfigError) as caught:
        build_config(tree | {"schedule": list(changes)})
    return [str(issue) for issue in caught.value.issues]


@pytest.mark.parametrize(
    "name",
    [
        *["student.kind", "student.factor_lr", "loss.kind", "perturbation.kind", "averaging.decay", "seed"],
        *[
            "training.epochs",
            "training.batch_size",
            "training.optimizer.momentum",
            "training.optimizer.weight_decay",
            "training.lr_schedule",
        ],
        *[
            "training.unlabeled_batch_size",
            "training.threads",
            "training.lr_update",
            "data.train_size",
            "model.width",
            "schedule",
        ],
        *["teachers.training.optimizer.lr", "loss", "perturbation", "training", "temperature", "lr", "loss.", ""],
    ],
)
def test_settings_of_objects_that_persist_over_epochs_cannot_change(name: str) -> None:
    (fault,) = faults({"after_epoch": 1, "set": {name: 1}})
    assert fault == f"schedule.0.set.{name}: {CANNOT}"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"loss.temperature": 0}, "loss.temperature: must be greater than or equal to 0.05, not 0"),
        ({"loss.temperature": None}, "loss.temperature: must be a number, not null"),
        ({"loss.temperature": "2"}, "loss.temperature: must be a number, not '2'"),
        ({"loss.temperature": [2]}, "loss.temperature: must be a number, not [2]"),
        ({"loss.alpha": float("nan")}, "loss.alpha: must be a finite number, not nan"),
        ({"training.optimizer.lr": 0.0}, "training.optimizer.lr: must be greater than 0, not 0.0"),
        ({"loss.average": "logit"}, "loss.average: 'logit' is not one of tempered_probabilities, "),
        ({"loss.temprature": 2}, "loss.temprature: no such setting of averaged (did you mean temperature?)"),
        ({"loss.tolerance": 0.5}, "loss.tolerance: no such setting of averaged (it belongs to aekd)"),
        ({"perturbation.step_size": 0.1}, "perturbation.step_size: no such setting of none (it belongs to gaussian, "),
    ],
    ids=str,
)
def test_a_new_value_is_validated_by_the_piece_it_changes(settings: Settings, fault: str) -> None:
    (told,) = faults({"after_epoch": 1, "set": settings})
    assert told.startswith(f"schedule.0.set.{fault}")


@pytest.mark.parametrize(
    ("epochs", "place", "last"), [((5,), 0, 0), ((7,), 0, 0), ((2, 2), 1, 2), ((3, 1), 1, 3), ((4, 5), 1, 4)]
)
def test_scheduled_changes_must_be_in_order_and_before_the_last_epoch(
    epochs: tuple[int, ...], place: int, last: int
) -> None:
    (fault,) = faults(*({"after_epoch": after, "set": COOLER} for after in epochs))
    assert fault == (
        f"schedule.{place}.after_epoch: must be above {last} and below 5 (training.epochs), not {epochs[place]}"
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"after_epoch": 0, "set": COOLER}, "schedule.0.after_epoch: must be greater than or equal to 1, not 0"),
        ({"after_epoch": 1.0, "set": COOLER}, "schedule.0.after_epoch: must be a whole number, not 1.0"),
        ({"after_epoch": 1, "set": {}}, "schedule.0.set: must have at least 1 value, not {}"),
        ({"after_epoch": 1}, "schedule.0.set: must be given"),
        ({"set": COOLER}, "schedule.0.after_epoch: must be given"),
        (
            {"after_epoch": 1, "set": COOLER, "until": 3},
            "schedule.0.until: no such setting (available: after_epoch, set)",
        ),
        (COOLER["loss.temperature"], "schedule.0: must be a mapping of names to values, not 2.0"),
    ],
    ids=str,
)
def test_a_change_must_state_an_epoch_and_settings(change: Any, fault: str) -> None:
    assert faults(change) == [fault]


def test_the_errors_in_all_scheduled_changes_are_reported_together() -> None:
    told = faults(
        {"after_epoch": 3, "set": {"student.kind": "branches", "loss.alpha": 2, "loss.weight": 1}},
        {"after_epoch": 3, "set": {"seed": 1}},
        {"after_epoch": 9, "set": {"training.optimizer.lr": -1} | COOLER},
    )
    assert [fault.split(":")[0].removeprefix("schedule.") for fault in told] == [
        *["0.set.student.kind", "0.set.loss.alpha", "0.set.loss.weight"],
        *["1.after_epoch", "1.set.seed", "2.after_epoch", "2.set.training.optimizer.lr"],
    ]


# --- files, overrides, parameters ---


def test_scheduled_changes_can_be_given_on_the_command_line() -> None:
    config = tiny_config("schedule=[{after_epoch: 1, set: {loss.temperature: 2}}]")
    assert config == scheduled(tiny_config(), (1, COOLER))


def test_yaml_with_scheduled_changes_is_read_back_as_the_same_settings(tmp_path: Path) -> None:
    config = scheduled(tiny_config(preset="latentbe"), (1, COOLER), (2, {"perturbation.step_size": 1 / 3} | SLOWER))
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    again = load_config(tmp_path / "c.yaml")
    assert (again, again.hash) == (config, config.hash)


def test_an_empty_schedule_is_not_written() -> None:
    assert "\nchanges:" not in to_yaml(tiny_config())
    assert "schedule" not in flatten(tiny_config().model_dump(mode="json"))


def test_scheduled_changes_are_logged_as_one_readable_parameter() -> None:
    flat = flatten(scheduled(tiny_config(), (1, COOLER)).model_dump(mode="json"))
    assert str(flat["schedule"]) == "[{'after_epoch': 1, 'set': {'loss.temperature': 2.0}}]"


# --- the hash ---


@pytest.mark.parametrize("preset", presets())
def test_an_empty_schedule_does_not_change_the_hash(preset: str) -> None:
    config = load_config(preset)
    settings = config.model_dump(mode="json")
    assert "schedule" not in settings
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    assert config.hash == hashlib.sha256(canonical.encode()).hexdigest()[:16]


def test_a_schedule_does_not_change_the_teacher_hash(digits: DataSplits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensdistill.training.teachers, "TEACHER_RECIPE_VERSION", 1)
    data = replace(digits, identity="data")
    for config in (tiny_config(), scheduled(tiny_config(), (1, COOLER))):
        assert [teacher_hash(config, m, data) for m in (0, 1)] == ["6dfd4e46c52bb4ee", "e8f07495ff0a6d86"]


def test_scheduled_changes_of_student_settings_do_not_apply_to_teachers() -> None:
    assert teacher_config(scheduled(tiny_config(), (1, COOLER)), 0) == teacher_config(tiny_config(), 0)


def test_different_schedules_have_different_hashes() -> None:
    base = tiny_config("training.epochs=5")
    schedules = [
        (),
        ((1, COOLER),),
        ((2, COOLER),),
        ((1, SLOWER),),
        ((1, COOLER), (2, SLOWER)),
        ((1, COOLER | SLOWER),),
    ]
    hashes = {scheduled(base, *changes).hash for changes in schedules}
    assert len(hashes | {tiny_config("training.epochs=5", "loss.temperature=2").hash}) == 7


def test_the_hash_does_not_depend_on_the_order_or_notation_of_changes() -> None:
    one = scheduled(tiny_config(), (1, {"loss.temperature": 2, "loss.alpha": 1}))
    two = scheduled(tiny_config(), (1, {"loss.alpha": 1.0, "loss.temperature": 2.0}))
    assert one.hash == two.hash


# --- metrics and weights ---


def test_a_full_batch_run_with_scheduled_changes_equals_an_explicit_loop(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    # One batch per epoch, so that the order of the images does not matter.
    overrides = ("training.epochs=4", "training.batch_size=40", "training.lr_schedule=constant")
    base = tiny_config(*overrides, "training.warmup_epochs=0")
    student = build(base.model, digits, base.seed).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    x, y = digits.train[slice(None)]
    losses = []
    for lr, temperature in ((0.05, 4), (0.05, 2), (0.01, 2), (0.01, 8)):
        optimizer.param_groups[0]["lr"] = lr
        s, p = student(x), (ensemble(x) / temperature).softmax(-1).mean(0)
        distillation = temperature**2 * F.kl_div((s / temperature).log_softmax(-1), p, reduction="batchmean")
        loss = 0.1 * F.cross_entropy(s, y) + 0.9 * distillation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    config = scheduled(base, (1, {"loss.temperature": 2}), (2, SLOWER), (3, {"loss.temperature": 8}))
    epochs = list(distill(config, ensemble, digits))
    assert [epoch.loss for epoch in epochs] == pytest.approx(losses, abs=1e-4)
    assert epochs[-1].val["nll"] == pytest.approx(evaluate(student, digits.validation)["nll"], abs=1e-3)


def test_the_perturbation_uses_the_step_size_of_the_epoch(
    ensemble: TeacherEnsemble, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = []
    perturb = TDivSDiv.__call__

    def spy(piece: TDivSDiv, x: Tensor, *others: Any) -> Tensor:
        gray = torch.full_like(x, 0.5)  # no pixel is clipped
        moved.append(float((perturb(piece, gray, *others) - gray).flatten(1).norm(dim=1)[0]))
        return x

    monkeypatch.setattr(TDivSDiv, "__call__", spy)
    base = tiny_config("perturbation.kind=tdiv_sdiv", "perturbation.step_size=0.01", "training.batch_size=40")
    list(distill(scheduled(base, (2, {"perturbation.step_size": 0.02})), ensemble, digits))
    assert moved == pytest.approx([0.08, 0.08, 0.16], rel=1e-3)  # step length: sqrt(8*8) = 8 times the step size


def test_a_changed_learning_rate_keeps_the_shape_of_its_schedule() -> None:
    base = tiny_config("training.epochs=4", "training.warmup_epochs=2")
    config = scheduled(base, (1, {"training.optimizer.lr": 0.025}), (3, {"training.optimizer.lr": 0.1}))
    rates = [config.at_epoch(1 + step).training.lr_at(step, 1) for step in range(4)]
    # a warm-up over two epochs from 0, then half a cosine over two epochs; the published rates times 1, 1/2, 1/2, 2
    assert rates == pytest.approx([0.0, 0.0125, 0.025, 0.05])


# --- checkpoints: a branched run saves the common epochs ---

BRANCHES: dict[str, tuple[Config, Settings, Settings]] = {  # settings; changes after epoch 1, and changes after epoch 2
    "temperature": (tiny_config(), COOLER, {"loss.alpha": 0.5}),
    "learning rate": (tiny_config("averaging.kind=lawa"), SLOWER, {"training.optimizer.lr": 0.2}),
    "step size": (
        tiny_config(*LATENTBE_EMA, preset="latentbe"),
        {"perturbation.step_size": 0.1},
        {"perturbation.step_size": 0.0, "perturbation.label_images": "clean"},
    ),
    "across the merge": (
        tiny_config("student.subnetworks=2", "student.merge_after=0.5", preset="latentbe"),
        COOLER | SLOWER,
        {"perturbation.step_size": 0.1},
    ),
    "what the labels see": (
        tiny_config("student.subnetworks=2", preset="diversity"),
        {"perturbation.label_images": "perturbed"},
        {"perturbation.temperature": 3.0},
    ),
    "unlabeled images": (
        tiny_config("training.unlabeled_batch_size=5", preset="unikd"),
        {"loss.unlabeled_weight": 3.0, "loss.disagreement": "variance"},
        {"loss.normalize": True},
    ),
    "weights of teachers": (tiny_config(preset="aekd"), {"loss.tolerance": 0.9}, {"loss.teacher_weight": 0.1}),
    "a Dirichlet student": (tiny_config(preset="proxy_end2"), {"loss.divergence": "proxy"}, COOLER),
    "branches": (tiny_config("student.subnetworks=2", preset="ekd"), {"loss.logit_weight": 1.0}, COOLER),
}

Result = tuple[list[tuple[Any, ...]], dict[str, Tensor]]


def whole(
    config: Config, ensemble: TeacherEnsemble, data: DataSplits, folder: Path, resume: Path | None = None
) -> Result:
    """Returns all results of a run except times, and the final weights; a checkpoint of every epoch is saved."""
    numbers, run = [], distill(config, ensemble, data, resume)
    for epoch in run:
        numbers.append((epoch.number, epoch.loss, epoch.val, epoch.subnetworks))
        run.save_checkpoint(folder / f"{epoch.number}.pt")
    return numbers, copy.deepcopy(run.student().state_dict())


def assert_same(one: Result, two: Result) -> None:
    assert one[0] == two[0]
    assert one[1].keys() == two[1].keys()
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


@pytest.mark.parametrize("name", BRANCHES)
def test_a_run_branched_from_a_checkpoint_equals_a_run_from_the_first_epoch_bit_for_bit(
    name: str, tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    base, first, second = BRANCHES[name]
    trunk, straight, branch = (tmp_path / folder for folder in ("trunk", "straight", "branch"))
    unchanged = whole(base, ensemble, digits, trunk)
    once, twice = scheduled(base, (1, first)), scheduled(base, (1, first), (2, second))
    expected = whole(twice, ensemble, digits, straight)
    assert [a == b for a, b in zip(unchanged[0], expected[0], strict=True)] == [True, False, False]

    torch.rand(7)  # other random numbers in between have no effect
    at_the_end = whole(once, ensemble, digits, branch, trunk / "1.pt")
    assert at_the_end[0][0] == expected[0][1]
    # a branch of the branch, and the same run resumed at its checkpoints, before and after the last change
    for checkpoint, done in ((branch / "2.pt", 2), (straight / "1.pt", 1), (straight / "2.pt", 2), (trunk / "1.pt", 1)):
        resumed = whole(twice, ensemble, digits, tmp_path / "again", checkpoint)
        assert_same(resumed, (expected[0][done:], expected[1]))


@pytest.fixture
def checkpoints(tmp_path: Path, ensemble: TeacherEnsemble, digits: DataSplits) -> Path:
    """A folder with the checkpoints of a run of five epochs with a change after the second epoch."""
    whole(scheduled(FIVE, (2, COOLER)), ensemble, digits, tmp_path)
    return tmp_path


FIVE = tiny_config("training.epochs=5", "training.batch_size=40")


@pytest.mark.parametrize(
    ("epoch", "changes"),
    [
        (1, []),
        (1, [(1, SLOWER)]),
        (1, [(3, SLOWER)]),
        (2, []),
        (2, [(2, SLOWER)]),
        (2, [(2, {"loss.temperature": 3})]),
        (3, [(2, COOLER)]),
        (3, [(2, {"loss.temperature": 2})]),
        (3, [(2, COOLER), (3, SLOWER)]),
        (4, [(2, COOLER), (4, SLOWER)]),
    ],
    ids=str,
)
def test_a_checkpoint_can_be_resumed_with_settings_that_are_equal_up_to_its_epoch(
    epoch: int, changes: list[tuple[int, Settings]], checkpoints: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    first = next(distill(scheduled(FIVE, *changes), ensemble, digits, checkpoints / f"{epoch}.pt"))
    assert first.number == epoch + 1


@pytest.mark.parametrize(
    ("epoch", "changes"),
    [
        (2, [(1, COOLER)]),
        (2, [(1, SLOWER), (2, COOLER)]),
        (3, []),
        (3, [(1, COOLER)]),
        (3, [(3, COOLER)]),
        (3, [(2, SLOWER)]),
        (3, [(2, {"loss.temperature": 3})]),
        (3, [(2, COOLER | SLOWER)]),
        (3, [(1, SLOWER), (2, COOLER)]),
        (4, [(2, COOLER), (3, SLOWER)]),
    ],
    ids=str,
)
def test_a_checkpoint_is_refused_if_settings_differ_before_its_epoch(
    epoch: int, changes: list[tuple[int, Settings]], checkpoints: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match="different settings"):
        distill(scheduled(FIVE, *changes), ensemble, digits, checkpoints / f"{epoch}.pt")


def test_a_checkpoint_is_refused_if_settings_outside_the_schedule_differ(
    checkpoints: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    for override in ("loss.temperature=2", "seed=1", "training.optimizer.weight_decay=0"):
        other = scheduled(tiny_config("training.epochs=5", "training.batch_size=40", override), (2, COOLER))
        with pytest.raises(ConfigError, match="different settings"):
            distill(other, ensemble, digits, checkpoints / "2.pt")


def test_a_checkpoint_without_a_schedule_has_the_hash_of_settings_without_a_schedule(
    checkpoints: Path, ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    saved = [torch.load(checkpoints / f"{n}.pt", weights_only=True)["identity"]["settings"] for n in range(1, 6)]
    changed = scheduled(FIVE, (2, COOLER)).hash
    assert saved == [FIVE.hash, FIVE.hash, changed, changed, changed]
