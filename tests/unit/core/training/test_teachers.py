"""The store of teachers: each is trained once, stored completely, repaired, and shared between processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from ensdistill.config import Config
from ensdistill.data import DataSplits, load_data
from ensdistill.errors import ConfigError, DataError, DivergedError, SettingWarning
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.optimizers import OptimizerPiece
from ensdistill.models import CustomModel
from ensdistill.settings.pieces import piece_code
from ensdistill.training import teachers
from ensdistill.training.loop import Distiller, EpochResult
from ensdistill.training.teachers import check_trained_teachers, get_ensemble, teacher_config, teacher_hash
from tests.unit.core.core_stand_ins import TINY, tiny_config


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of all teachers trained during the test."""
    seeds: list[int] = []
    original = teachers.distill

    def counted(config: Config, *rest: Any) -> Distiller:
        seeds.append(config.seed)
        return original(config, *rest)

    monkeypatch.setattr(teachers, "distill", counted)
    return seeds


def logits(ensemble: TeacherEnsemble, data: DataSplits) -> torch.Tensor:
    return ensemble(data.validation[slice(0, 20)][0])


def folders(store: Path) -> list[Path]:
    """Returns everything in the store except locks."""
    return sorted(path for path in store.iterdir() if path.suffix != ".lock")


# --- trained once ---


def test_a_second_call_returns_the_same_ensemble_without_training_a_teacher(
    tmp_path: Path, digits: DataSplits, trainings: list[int]
) -> None:
    first = get_ensemble(tiny_config(), digits, tmp_path)
    assert len(trainings) == len(first) == 2
    second = get_ensemble(tiny_config(), digits, tmp_path)
    assert len(trainings) == 2
    assert second.identity == first.identity
    assert torch.equal(logits(second, digits), logits(first, digits))


def test_for_a_larger_ensemble_only_the_missing_teachers_are_trained(
    tmp_path: Path, digits: DataSplits, trainings: list[int]
) -> None:
    small = get_ensemble(tiny_config(), digits, tmp_path)
    large = get_ensemble(tiny_config("teachers.count=3"), digits, tmp_path)
    assert len(trainings) == 3
    assert torch.equal(logits(large, digits)[:2], logits(small, digits))
    assert large.identity != small.identity


def test_errors_and_warnings_about_teachers_begin_with_the_name_of_the_setting(
    tmp_path: Path, digits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match=r"^teachers\.model\.blocks: 8 blocks halve the images 7 times"):
        check_trained_teachers(tiny_config("teachers.model.blocks=8"), digits)
    with pytest.raises(ConfigError, match=r"^teachers\.model\.freeze: 'x' matches no part"):
        check_trained_teachers(tiny_config("teachers.model.freeze=[x]"), digits)
    torch.save(tiny_config().teachers.model((1, 8, 8), 3).state_dict(), tmp_path / "w.pt")
    words = ["teachers.count=1", f"teachers.model.weights={tmp_path / 'w.pt'}"]
    for call in (check_trained_teachers, get_ensemble):
        with pytest.warns(SettingWarning, match="classifier") as caught:
            call(tiny_config(*words), digits, *([tmp_path] if call is get_ensemble else []))
        (text,) = {str(one.message) for one in caught}
        assert text.startswith("teachers.model.weights: the classifier (")


def test_ensembles_with_neighboring_seeds_reuse_the_teachers_that_they_have_in_common(
    tmp_path: Path, digits: DataSplits, trainings: list[int]
) -> None:
    get_ensemble(tiny_config(), digits, tmp_path)
    get_ensemble(tiny_config("teachers.seed=1"), digits, tmp_path)
    assert len(trainings) == 3


def test_teachers_are_reused_if_only_settings_of_the_student_change(
    tmp_path: Path, digits: DataSplits, trainings: list[int]
) -> None:
    get_ensemble(tiny_config(), digits, tmp_path)
    get_ensemble(
        tiny_config("seed=5", "training.optimizer.lr=0.3", "model.width=3", preset="latentbe"), digits, tmp_path
    )
    assert len(trainings) == 2


def test_training_in_another_store_gives_the_same_weights(tmp_path: Path, digits: DataSplits) -> None:
    one, two = (get_ensemble(tiny_config(), digits, tmp_path / name) for name in "ab")
    assert one.identity == two.identity


def test_progress_is_reported_after_every_epoch_and_once_for_a_cached_teacher(
    tmp_path: Path, digits: DataSplits
) -> None:
    config = tiny_config("teachers.training.epochs=2")
    reports: list[tuple[int, int]] = []
    get_ensemble(config, digits, tmp_path, lambda *report: reports.append(report))
    assert reports == [(0, 1), (0, 2), (1, 1), (1, 2)]
    reports.clear()
    get_ensemble(config, digits, tmp_path, lambda *report: reports.append(report))
    assert reports == [(0, 2), (1, 2)]


# --- the hash ---


@pytest.mark.parametrize(
    "override",
    [
        "teachers.seed=1",
        "teachers.training.epochs=2",
        "teachers.training.optimizer.lr=0.2",
        "teachers.training.batch_size=10",
        "teachers.training.threads=2",
        "teachers.model.width=3",
        "teachers.model.blocks=2",
    ],
)
def test_changed_teacher_settings_give_a_different_hash(digits: DataSplits, override: str) -> None:
    assert teacher_hash(tiny_config(override), 0, digits) != teacher_hash(tiny_config(), 0, digits)


@pytest.mark.parametrize("override", ["data.seed=1", "data.train_size=50"])
def test_different_data_give_a_different_hash(digits: DataSplits, override: str) -> None:
    config = tiny_config(override)
    assert teacher_hash(config, 0, load_data(config.data)) != teacher_hash(tiny_config(), 0, digits)


@pytest.mark.parametrize("override", ["seed=1", "training.optimizer.lr=0.2", "model.width=5", "loss.alpha=0.1"])
def test_student_settings_do_not_change_the_teacher_hash(digits: DataSplits, override: str) -> None:
    assert teacher_hash(tiny_config(override), 0, digits) == teacher_hash(tiny_config(), 0, digits)


def test_teachers_of_one_ensemble_differ_only_in_their_seeds() -> None:
    first, second = (teacher_config(tiny_config(), m) for m in range(2))
    assert first.seed != second.seed
    assert first.model_copy(update={"seed": second.seed}) == second


def test_teacher_seeds_are_distinct_from_student_seeds() -> None:
    seeds = {teacher_config(tiny_config(), m).seed for m in range(64)}
    assert len(seeds) == 64
    assert not seeds & set(range(10_000))


# --- damage ---


def _teacher(store: Path, data: DataSplits) -> Path:
    return store / teacher_hash(tiny_config(), 0, data)


def _assert_retrained(store: Path, data: DataSplits, identity: str, trainings: list[int]) -> None:
    trainings.clear()
    again = get_ensemble(tiny_config(), data, store)
    assert len(trainings) == 1
    assert again.identity == identity
    get_ensemble(tiny_config(), data, store)
    assert len(trainings) == 1


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_teacher_with_truncated_weights_is_trained_again_with_the_same_result(
    tmp_path: Path, digits: DataSplits, trainings: list[int], keep: int
) -> None:
    identity = get_ensemble(tiny_config(), digits, tmp_path).identity
    file = _teacher(tmp_path, digits) / "network.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    _assert_retrained(tmp_path, digits, identity, trainings)


@pytest.mark.parametrize("garbage", [b"", b"{", b"{}", b'{"weights": 3}', b"\xff\xfe", b"[]", b"null", b"3"], ids=repr)
def test_a_teacher_with_an_invalid_record_is_trained_again_with_the_same_result(
    tmp_path: Path, digits: DataSplits, trainings: list[int], garbage: bytes
) -> None:
    identity = get_ensemble(tiny_config(), digits, tmp_path).identity
    (_teacher(tmp_path, digits) / "teacher.json").write_bytes(garbage)
    _assert_retrained(tmp_path, digits, identity, trainings)


@pytest.mark.parametrize("name", ["network.safetensors", "teacher.json"])
def test_a_teacher_with_a_missing_file_is_trained_again_with_the_same_result(
    tmp_path: Path, digits: DataSplits, trainings: list[int], name: str
) -> None:
    identity = get_ensemble(tiny_config(), digits, tmp_path).identity
    (_teacher(tmp_path, digits) / name).unlink()
    _assert_retrained(tmp_path, digits, identity, trainings)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_the_error_names_a_store_that_is_not_writable(tmp_path: Path, digits: DataSplits, place: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot be written"):
        get_ensemble(tiny_config(), digits, tmp_path / place)


# --- interruption and other processes ---


def test_an_interrupted_training_leaves_no_incomplete_teacher(
    tmp_path: Path, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Distiller):
        def __next__(self) -> EpochResult:
            if self.done:
                raise KeyboardInterrupt
            return super().__next__()

    with monkeypatch.context() as patch:
        patch.setattr(teachers, "distill", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            get_ensemble(tiny_config("teachers.training.epochs=2"), digits, tmp_path)
    assert folders(tmp_path) == []
    assert len(get_ensemble(tiny_config("teachers.training.epochs=2"), digits, tmp_path)) == 2


def test_an_interruption_between_writing_two_files_leaves_no_incomplete_teacher(
    tmp_path: Path, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(teachers, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get_ensemble(tiny_config(), digits, tmp_path)
    assert folders(tmp_path) == []


def test_the_store_contains_only_complete_teachers(tmp_path: Path, digits: DataSplits) -> None:
    get_ensemble(tiny_config(), digits, tmp_path)
    expected = sorted(tmp_path / teacher_hash(tiny_config(), m, digits) for m in range(2))
    assert folders(tmp_path) == expected
    for home in expected:
        assert sorted(path.name for path in home.iterdir()) == ["network.safetensors", "teacher.json"]
        assert json.loads((home / "teacher.json").read_text())["data"] == digits.identity


RACE = """
import sys, time
from ensdistill import get_ensemble, load_config, load_data
from ensdistill.training import teachers
original = teachers.distill
def slow(*arguments):
    print("trained", flush=True)
    time.sleep(0.5)
    return original(*arguments)
teachers.distill = slow
config = load_config("kd", sys.argv[2:])
data = load_data(config.data)
print("ready", flush=True)
sys.stdin.readline()
print("identity", get_ensemble(config, data, sys.argv[1]).identity)
"""


@pytest.mark.e2e
def test_an_ensemble_required_by_two_processes_is_trained_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path), *TINY]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(some.count("trained") for some in lines) == 2  # two teachers, each trained once
    assert lines[0][-1] == lines[1][-1]


def test_a_teacher_trained_by_another_machine_in_a_separate_folder_is_reported_as_missing(
    tmp_path: Path, digits: DataSplits
) -> None:
    with pytest.raises(DataError, match=r"teacher 1 was trained, but its files are missing; .*one studies folder"):
        get_ensemble(tiny_config(), digits, tmp_path, train=lambda *_: None)


def test_the_lock_of_a_teacher_is_released_after_an_interrupt_during_training(
    tmp_path: Path, digits: DataSplits
) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:  # and kept, as in a notebook
        get_ensemble(tiny_config(), digits, tmp_path, interrupt)
    with FileLock(f"{_teacher(tmp_path, digits)}.lock", timeout=0):
        assert caught


# --- properties of an ensemble ---


def test_teachers_stay_frozen_and_in_evaluation_mode(tmp_path: Path, digits: DataSplits) -> None:
    ensemble = get_ensemble(tiny_config(), digits, tmp_path).train()
    assert not any(module.training for module in ensemble.modules())
    assert not any(p.requires_grad for p in ensemble.parameters())


def test_logits_of_selected_teachers_equal_the_corresponding_slices_of_all_logits(
    digits: DataSplits, ensemble: TeacherEnsemble
) -> None:
    x = digits.validation[slice(0, 5)][0]
    assert torch.equal(ensemble(x, [1, 0]), ensemble(x)[[1, 0]])


def test_an_empty_ensemble_returns_logits_for_zero_teachers() -> None:
    empty = TeacherEnsemble([], 10, "none")
    assert empty(torch.rand(3, 1, 8, 8)).shape == (0, 3, 10)
    assert len(empty) == 0


def test_ensembles_with_different_weights_have_different_identities(tmp_path: Path, digits: DataSplits) -> None:
    identities = {
        get_ensemble(tiny_config(*change), digits, tmp_path).identity
        for change in ((), ("teachers.seed=1",), ("teachers.count=1",))
    }
    assert len(identities) == 3


def test_the_members_of_an_ensemble_are_plain_networks(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    for network in ensemble.networks:
        assert isinstance(network, nn.Module)
        assert network(digits.validation[slice(0, 3)][0]).shape == (3, 10)


def test_the_error_of_a_diverging_teacher_names_the_teacher_and_the_setting_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any) -> Distiller:
        raise DivergedError(2, 5, float("nan"))

    monkeypatch.setattr(teachers, "distill", diverge)
    config = tiny_config()
    with pytest.raises(
        DivergedError, match=r"teacher 1: the loss became nan.* lower teachers\.training\.optimizer\.lr"
    ):
        get_ensemble(config, load_data(config.data), tmp_path)


def test_the_teacher_hash_depends_on_the_code_of_a_custom_augmentation(
    digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    negative = "teachers.training.augmentation.kind=tests.plugin.ensdistill_example.methods:Negative"
    before = teacher_hash(tiny_config(negative), 0, digits)
    assert before == teacher_hash(tiny_config(negative), 0, digits)
    monkeypatch.setattr("ensdistill.training.teachers.piece_code", lambda piece: "changed")
    assert before != teacher_hash(tiny_config(negative), 0, digits)


def test_the_teacher_hash_depends_on_the_code_of_a_custom_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from torch import nn\ndef net(num_classes):\n    return nn.Linear(64, num_classes)\n"
    (tmp_path / "own_networks.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    own = CustomModel(path="own_networks:net")
    config = tiny_config()
    config = config.model_copy(update={"teachers": config.teachers.model_copy(update={"model": own})})
    data = load_data(config.data)
    before = teacher_hash(config, 0, data)
    assert before == teacher_hash(config, 0, data)
    (tmp_path / "own_networks.py").write_text(source + "# changed\n")
    assert before != teacher_hash(config, 0, data)


def test_the_teacher_hash_depends_on_the_code_of_a_custom_optimizer(
    digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(OptimizerPiece):
        """A user-defined optimizer."""

    training = tiny_config().teachers.training.model_copy(update={"optimizer": Own()})
    found = set()
    for code in ("first", "second"):
        monkeypatch.setattr(Own, "piece_source_hash", code)
        piece_code.cache_clear()
        own = tiny_config().teachers.model_copy(update={"training": training})
        found.add(teacher_hash(tiny_config().model_copy(update={"teachers": own}), 0, digits))
    piece_code.cache_clear()
    assert len(found) == 2
