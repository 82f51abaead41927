"""Population-based training: which trials are stopped, which are copied, and with which settings."""

import json
from typing import Any

import pytest

from ensdistill.config import to_yaml
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.search.pbt import Pbt
from ensdistill_tune.search.schedulers import StoppingRule
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import StudyConfig
from tests.commands import call
from tests.unit.study.execution.test_trial_planner import EPOCHS, SPACE, work

PBT = {"kind": "pbt", "population": 6, "interval_epochs": 3, "quantile": 0.5, "seed": 1}


def study(**more: Any) -> StudyConfig:
    return StudyConfig.model_validate(SPACE | {"scheduler": PBT, "budget": {"trials": 16}} | more)


def stops(rule: StoppingRule, number: int, epoch: int, value: float) -> bool:
    return rule.decide(number, epoch, [value]) is Decision.STOP


def test_a_quarter_of_the_trials_is_stopped_once_four_trials_can_be_compared() -> None:
    rule = Pbt(interval_epochs=2, quantile=0.25)(10, ["min"])
    assert not any(stops(rule, number, 1, 9.0 + number) for number in range(8))
    assert [stops(rule, number, 2, value) for number, value in enumerate([0.1, 0.2, 0.3, 0.4, 0.35, 0.05])] == [
        False,
        False,
        False,
        True,  # the worst of four trials
        False,  # the second worst of five trials
        False,
    ]
    assert not stops(rule, 9, 10, 99.0)  # a completed trial is not stopped


def test_larger_values_are_better_if_the_objective_is_maximized() -> None:
    rule = Pbt(interval_epochs=1, quantile=0.5)(10, ["max"])
    assert [stops(rule, number, 1, value) for number, value in enumerate([0.9, 0.8, 0.95])] == [False, True, False]


def record(number: int, values: list[float], state: str, lr: float = 0.1, **more: Any) -> TrialRecord:
    first = more["schedule"][-1]["after_epoch"] + 1 if "schedule" in more else 1
    epochs = [{"epoch": float(n), "epochs": float(EPOCHS), "val/nll": value} for n, value in enumerate(values, first)]
    sampled = {"loss.temperature": 2.0, "averaging.kind": "none"}
    return TrialRecord(number, None, sampled, "", state, epochs, **more)  # type: ignore[arg-type]


def test_a_stopped_trial_is_replaced_by_a_trial_that_starts_from_a_better_checkpoint() -> None:
    of = study()
    trials = [
        record(1, [0.9, 0.8, 0.5, 0.4], "running"),
        record(2, [0.9, 0.8, 0.7], "running"),
        record(3, [0.9, 0.8, 0.6], "running"),
        record(4, [0.9, 0.8, 0.9], "pruned"),
        record(5, [0.1, 0.1], "running"),  # has not reached this epoch
    ]
    branch = of.scheduler.exploit_and_explore(of.space, of.merit, of.mode, trials)  # type: ignore[union-attr]
    assert branch is not None
    assert (branch["parent"], branch["replaces"]) == (1, 4)
    (change,) = branch["schedule"]
    assert change["after_epoch"] == 3
    assert set(change["set"]) == {"loss.temperature"}  # the average is created only once
    assert change["set"]["loss.temperature"] != 2.0
    assert branch == of.scheduler.exploit_and_explore(of.space, of.merit, of.mode, trials)  # type: ignore[union-attr]
    taken = [*trials, record(6, [0.4], "running", **{k: branch[k] for k in ("schedule", "parent", "replaces")})]
    assert of.scheduler.exploit_and_explore(of.space, of.merit, of.mode, taken) is None  # type: ignore[union-attr]


def test_no_trial_starts_from_an_infeasible_trial_if_a_feasible_one_exists() -> None:
    of = study(constraints={"val/nll": {"at_least": 0.45}})
    trials = [
        record(1, [0.9, 0.8, 0.4], "running"),
        record(2, [0.9, 0.8, 0.7], "running"),
        record(3, [0.9, 0.8, 0.5], "running"),
        record(4, [0.9, 0.8, 0.9], "pruned"),
    ]
    branch = of.scheduler.exploit_and_explore(of.space, of.merit, of.mode, trials)  # type: ignore[union-attr]
    assert branch is not None
    assert branch["parent"] == 3


def test_a_setting_is_perturbed_from_its_current_value_and_stays_in_its_range() -> None:
    of, seen = study(), set()
    for seed in range(200):
        pbt = Pbt(population=6, interval_epochs=3, resample=0.0, factor=1.25, seed=seed)
        before = [{"after_epoch": 3, "set": {"loss.temperature": 9.0}}]
        parent = record(7, [0.5, 0.4, 0.3], "running", schedule=before, parent=1, replaces=2)
        trials = [record(1, [0.9] * 6, "finished"), parent, record(3, [0.9] * 6, "pruned")]
        branch = pbt.exploit_and_explore(of.space, of.merit, of.mode, trials)
        assert branch is not None
        assert branch["parent"] == 7
        assert branch["schedule"][:-1] == before
        seen.add(round(branch["schedule"][-1]["set"]["loss.temperature"], 6))
    assert seen == {10.0, 9.0 / 1.25}


def test_a_population_is_trained_to_the_end_and_every_trial_has_a_valid_config(tmp_path: Any) -> None:
    of = study()
    progress = work(of, tmp_path, slots=4)
    searched = [trial for trial in progress.primary_trials if trial.kind == "search"]
    branches = [trial for trial in searched if trial.replaces]
    assert sum(trial.replaces is None for trial in searched) == 6
    assert branches
    assert len({trial.replaces for trial in branches}) == len(branches)
    for trial in branches:
        config = of.config_for(trial)
        after = trial.schedule[-1]["after_epoch"]
        assert config.at_epoch(after).loss.temperature != config.at_epoch(after + 1).loss.temperature
        assert progress.trials[trial.parent or 0].report_after(after)
    assert {trial.state for trial in searched} <= {"finished", "pruned"}


def test_pbt_requires_a_setting_that_can_change_during_training(tmp_path: Any) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("preset: kd\nsearch:\n  averaging.kind: {choice: [none, ema]}\nscheduler: {kind: pbt}\n")
    done = call("ensdistill-tune", "launch", file, "--studies-dir", tmp_path)
    assert done.code == 2
    assert "line 4: scheduler.kind: pbt requires an axis that can change during training" in done.err


REAL = """
preset: kd
config:
  data: {kind: digits, train_size: 100, val_size: 100}
  model: {width: 4}
  teachers: {count: 2, model: {width: 4}, training: {epochs: 2}}
  training: {epochs: 12, batch_size: 10}
search:
  loss.temperature: {log_uniform: [1, 10]}
  training.optimizer.lr: {log_uniform: [0.001, 0.3]}
searcher: {kind: random}
scheduler: {kind: pbt, population: 5, interval_epochs: 3, quantile: 0.5}
budget: {trials: 10}
confirmation: {top_k: 0}
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pbt")
    (folder / "pbt.yaml").write_text(REAL)
    words = ("--studies-dir", folder / "studies", "--executor", "inline")
    done = call("ensdistill-tune", "launch", folder / "pbt.yaml", *words)
    assert done.code == 0, done.err
    return folder / "studies"


def test_a_trial_started_from_the_checkpoint_of_another_trial_equals_one_trained_from_the_start(real: Any) -> None:
    folder = StudyDirectory(real / "pbt")
    of = load_study(real.parent / "pbt.yaml")
    branches = [t for t in folder.read_trials() if t.replaces and t.state == "finished"]
    assert branches
    trial = branches[-1]
    (real.parent / "branch.yaml").write_text(to_yaml(of.config_for(trial)))
    again = call(
        "ensdistill", "distill", real.parent / "branch.yaml", "--json", "--studies-dir", real, "--device", "cpu"
    )
    assert again.code == 0, again.err
    assert json.loads(again.out)["val"]["nll"] == trial.last["val/nll"]
    assert [e["epoch"] for e in trial.epochs] == list(range(trial.schedule[-1]["after_epoch"] + 1, 13))


def test_checkpoints_kept_for_other_trials_are_deleted_at_the_end(real: Any) -> None:
    assert not list((real / "pbt").glob("trials/*/*.pt"))
