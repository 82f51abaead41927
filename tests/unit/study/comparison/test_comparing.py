"""Comparisons with real data and teachers; most students are replaced by random values."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensdistill_tune as edt
from ensdistill.config import Config, load_config, to_yaml
from ensdistill.errors import DivergedError
from ensdistill_tune.comparison import students
from ensdistill_tune.comparison.contenders import contenders_of
from ensdistill_tune.comparison.result import pair_of
from ensdistill_tune.study.loading import load_study
from tests.commands import call
from tests.tiny import TinyStudy

SPACE = Path(__file__).parents[4] / "search_spaces" / "cluttered_digits.yaml"
SMALL = {
    "data": {"kind": "digits", "train_size": 40, "val_size": 60},
    "model.width": 2,
    "teachers": {"count": 2, "model": {"width": 2}, "training": {"epochs": 1, "batch_size": 20}},
    "training": {"epochs": 1, "batch_size": 20},
}
TEMPERATURES = {"loss.temperature": 2.0}
Train = Callable[[Config, Any, Any], students.Row]


def drawn(config: Config, apart: dict[str, float]) -> students.Row:
    """Returns a row whose NLL depends on loss and seed; `apart` is added by kind of loss."""
    noise = np.random.default_rng([config.seed, len(config.loss.kind)]).normal(0, 0.01)
    nll = 1.0 + apart.get(config.loss.kind, 0.0) + noise
    return {"config_hash": config.hash, "seed": config.seed, "val": {"nll": nll, "accuracy": 0.5}, "seconds": 1.0}


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a settings file; comparisons with it share their teachers."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "small.yaml").write_text(to_yaml(load_config("kd")._override(SMALL)))
    return folder


@pytest.fixture
def studies(where: Path, tmp_path: Path) -> Path:
    (tmp_path / "teachers").symlink_to(where / "teachers")
    (where / "teachers").mkdir(exist_ok=True)
    return tmp_path


def compared(studies: Path, where: Path, *names: str, **more: Any) -> edt.ComparisonResult:
    return edt.compare(*names, config=where / "small.yaml", studies_dir=studies, progress="off", **more)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces training; returns the list of "trained" students by loss and seed. latentbe is better by 0.05."""
    done: list[str] = []

    def train(config: Config, *_: Any) -> students.Row:
        done.append(f"{config.loss.kind} {config.seed}")
        return drawn(config, {"one_to_one": -0.05})

    monkeypatch.setattr(students, "train", train)
    return done


def test_presets_are_compared_using_the_recipe_of_the_cluttered_digits_search_space(tmp_path: Path) -> None:
    published = load_study(SPACE)
    for file in (None, SPACE):
        for one in contenders_of(["latentbe", "kd"], tmp_path, file):
            assert one.config.hash == published.baseline_config(one.name).hash


def test_the_name_of_a_study_selects_its_best_trial_unless_a_trial_number_is_given(tiny: TinyStudy) -> None:
    facts = edt.load_results(tiny.home)
    best, third, preset = contenders_of(["tiny", "tiny:3", "labels"], tiny.studies)
    assert best.config.hash == facts.best_config.model_copy(update={"seed": 0}).hash
    assert third.config == facts.study.config_for(facts.trials[2]).model_copy(update={"seed": 0})
    assert (preset.config.data, preset.config.training) == (best.config.data, best.config.training)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["latentb", "kd"], "latentb: must be a preset, .* Did you mean latentbe"),
        (["kd", "kd"], "kd: must differ from kd, but has the same settings"),
        (["kd"], "at least two settings, got 1"),
    ],
)
def test_settings_that_cannot_be_compared_are_refused(names: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(edt.ConfigError, match=words):
        contenders_of(names, tmp_path)


def test_files_with_different_data_are_refused_unless_common_data_settings_are_given(
    where: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("preset: labels\ndata: {kind: digits, train_size: 50}\n")
    with pytest.raises(edt.ConfigError, match=r"other.yaml: data must be the same as for .*small.yaml, but differ"):
        contenders_of([where / "small.yaml", other], tmp_path)
    first, second = contenders_of([where / "small.yaml", other], tmp_path, where / "small.yaml")
    assert first.config.data == second.config.data
    assert second.config.loss.kind == "labels"


def test_overrides_apply_to_all_contenders(tmp_path: Path) -> None:
    made = contenders_of(["kd", "latentbe"], tmp_path, overrides=TEMPERATURES)
    assert {one.config.loss.temperature for one in made} == {2.0}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("names", "outcome", "code"),
    [
        (("latentbe", "kd"), "better", 0),
        (("kd", "latentbe"), "worse", 3),
        (("kd", "labels"), "undecided", 1),
        (("kd", "labels", "latentbe"), "worse", 3),
    ],
)
def test_the_exit_code_indicates_the_outcome(
    names: tuple[str, ...], outcome: str, code: int, studies: Path, where: Path, trained: list[str]
) -> None:
    words = ["--config", where / "small.yaml", "--studies-dir", studies, "--workers", "1", "--json"]
    done = call("ensdistill-tune", "compare", *names, *words)
    row = json.loads(done.out)
    assert (done.code, row["outcome"], row["exit_code"]) == (code, outcome, code), done.err
    assert json.loads((Path(row["folder"]) / "result.json").read_text()) == row
    assert "seed 0: " in done.err


def test_differences_are_paired_by_seed_and_seeds_are_added_until_a_decision(
    studies: Path, where: Path, trained: list[str]
) -> None:
    result = compared(studies, where, "latentbe", "kd", first_seed=5)
    config = load_config("kd")
    expected = [drawn(config.model_copy(update={"seed": 5 + n}), {})["val"]["nll"] for n in range(6)]
    assert result.values["kd"] == expected
    assert len(trained) == 12
    (pair,) = result.pairs
    assert pair.differences == tuple(a - b for a, b in zip(result.values["latentbe"], expected, strict=True))
    assert pair.interval[0] <= min(pair.differences)
    assert pair.interval[1] < 0


def test_a_second_call_with_more_seeds_trains_students_only_for_the_additional_seeds(
    studies: Path, where: Path, trained: list[str]
) -> None:
    short = compared(studies, where, "kd", "labels", seeds=6)
    assert (short.outcome, len(trained)) == ("undecided", 12)
    longer = compared(studies, where, "kd", "labels", seeds=8)
    assert len(trained) == len(set(trained)) == 16
    assert longer.values["kd"][:6] == short.values["kd"]
    assert longer.folder == short.folder


def test_a_resumed_comparison_does_not_repeat_finished_students(
    studies: Path, where: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = students.train, len(trained)

    def interrupted(config: Config, *more: Any) -> students.Row:
        if len(trained) == 5:
            raise KeyboardInterrupt
        return whole(config, *more)

    monkeypatch.setattr(students, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(studies, where, "latentbe", "kd")
    monkeypatch.setattr(students, "train", whole)
    again = compared(studies, where, "latentbe", "kd")
    assert len(trained) - calls == len(set(trained)) == 12
    assert again.outcome == "better"
    assert not list((studies / "compare" / "students").glob(".*"))


def test_a_diverged_student_causes_an_error_instead_of_a_result(
    studies: Path, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(config: Config, *_: Any) -> students.Row:
        raise DivergedError(1, 1, float("nan"))

    monkeypatch.setattr(students, "train", diverge)
    words = ["--config", where / "small.yaml", "--studies-dir", studies, "--workers", "1"]
    done = call("ensdistill-tune", "compare", "latentbe", "kd", *words)
    assert done.code == 2
    assert "lower training.optimizer.lr" in done.err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("seeds", 5, "--seeds: must be from 6"),
        ("seeds", 21, "to 20, got 21"),
        ("metric", "nll", "--metric: must be one of .*val/nll"),
        ("workers", 0, "--workers: must be at least 1"),
        ("first_seed", -1, "--first-seed: must be at least 0"),
    ],
)
def test_arguments_out_of_range_are_refused(option: str, value: Any, words: str, studies: Path, where: Path) -> None:
    with pytest.raises(edt.ConfigError, match=words):
        compared(studies, where, "kd", "labels", **{option: value})


def test_a_damaged_student_is_reported_with_the_fix(studies: Path, where: Path, trained: list[str]) -> None:
    compared(studies, where, "latentbe", "kd")
    file = next((studies / "compare" / "students").glob("*.json"))
    file.write_text("{")
    with pytest.raises(edt.DataError, match=r"not valid JSON; the file may be damaged\. Delete the file"):
        compared(studies, where, "latentbe", "kd")


@pytest.mark.e2e
def test_two_processes_give_the_same_values_as_one_process(where: Path, tmp_path: Path) -> None:
    one = compared(tmp_path / "one", where, "kd", "labels", seeds=6)
    words = ["--config", where / "small.yaml", "--studies-dir", tmp_path / "two", "--seeds", "6", "--json"]
    two = json.loads(call("ensdistill-tune", "compare", "kd", "labels", *words).out)
    assert {row["name"]: row["values"] for row in two["settings"]} == one.values


def test_an_undecided_result_states_whether_more_seeds_could_decide_the_comparison() -> None:
    def of(*own: float) -> str:
        return str(pair_of("val/nll", "min", "a", "b", {"a": own, "b": [1.0] * len(own)}))

    assert of(1.3, 0.0, 1.8, 0.8, 1.5, 1.9).endswith("better in 2 of 6 seeds; more seeds may lead to a decision")
    assert "(too few seeds)" in of(1.3, 1.3, 1.3)
    assert of(*[1.0] * 6).endswith("better in 0 of 6 seeds; more seeds are not expected to lead to a decision")
