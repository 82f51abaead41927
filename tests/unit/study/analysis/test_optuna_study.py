"""A study converted to an Optuna study: all plots of Optuna accept it, and it contains the results of the trials."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna import visualization
from optuna.trial import TrialState

from ensdistill.errors import DataError
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.trial_times import TrialTimes
from tests.unit.report.synthetic import EPOCHS, facts

OTHERS = {"is_available", "matplotlib", "plot_hypervolume_history", "plot_pareto_front"}  # plots for two objectives
PLOTS = sorted(set(visualization.__all__) - OTHERS)


def results(trials: int = 40, **more: Any) -> StudyResults:
    """Returns a finished study with conditional settings, pruned and failed trials; trial n starts at second 1000 n."""
    made = facts(trials, **more)
    times = {trial.number: TrialTimes(1000.0 * trial.number, 1000.0 * trial.number + 90) for trial in made.trials}
    return replace(made, times=times, summary={**made.summary, "study_id": "abc"})


@pytest.fixture(scope="module")
def known() -> StudyResults:
    return results()


@pytest.fixture(scope="module")
def study(known: StudyResults) -> optuna.Study:
    return known.to_optuna()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", PLOTS)
def test_every_optuna_plot_for_a_single_objective_accepts_the_converted_study(name: str, study: optuna.Study) -> None:
    plot: Callable[[Any], Any] = getattr(visualization, name)
    assert plot(study).data


def test_all_plots_of_optuna_are_tested() -> None:
    assert len(PLOTS) == 10


def test_search_trials_keep_their_states_and_values_and_settings_in_optuna(
    known: StudyResults, study: optuna.Study
) -> None:
    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    assert len(study.trials) == len(known.search_trials) == 40
    for ours, theirs in zip(known.search_trials, study.trials, strict=True):
        assert theirs.state is states[ours.state]
        assert theirs.params == ours.sampled
        assert theirs.value == (None if ours.state == "failed" else ours.last["val/nll"])
        assert theirs.intermediate_values == {int(epoch["epoch"]): epoch["val/nll"] for epoch in ours.epochs}
        assert theirs.user_attrs["trial"] == ours.number
    assert {trial.state for trial in study.trials} == set(states.values())
    assert study.best_trial.user_attrs["trial"] == known.search_order[0].number


def test_trials_keep_their_start_and_end_times_in_optuna(study: optuna.Study) -> None:
    durations = {trial.duration.total_seconds() for trial in study.trials if trial.duration}
    assert durations == {90.0}


def test_baselines_are_stored_as_study_attributes(known: StudyResults, study: optuna.Study) -> None:
    values = {trial.baseline: [trial.last["val/nll"]] for trial in known.trials if trial.baseline}
    assert {name: study.user_attrs[f"baseline {name}"] for name in values} == values


def test_running_and_waiting_trials_have_no_value_in_optuna(known: StudyResults) -> None:
    finished = next(trial for trial in known.trials if trial.kind == "search" and trial.state == "finished")
    for state, theirs in (("running", TrialState.RUNNING), ("interrupted", TrialState.WAITING)):
        open_trial = replace(finished, state=state, epochs=finished.epochs[:3])
        (trial,) = replace(known, trials=[open_trial]).to_optuna().trials
        assert (trial.state, trial.value, trial.params) == (theirs, None, finished.sampled)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_study_with_several_objectives_becomes_a_multi_objective_optuna_study() -> None:
    known = results(secondary_objectives=["cost/flops"], costs=True, scheduler={"kind": "none"})
    study = known.to_optuna()
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    searched = replace(known, trials=known.search_trials, confirmed=())
    assert {trial.user_attrs["trial"] for trial in study.best_trials} == {t.number for t in searched.pareto_trials}
    assert visualization.plot_pareto_front(study).data
    assert visualization.plot_hypervolume_history(study, [2.0, 1e6]).data


def test_values_that_are_blocks_of_settings_are_stored_in_optuna_as_json_text() -> None:
    blocks = [{"kind": "none"}, {"kind": "ema", "decay": 0.9}]
    known = results(8, seeds=0)
    axis = {"averaging": {"choice": blocks}}
    config = known.study.model_validate({**known.study.model_dump(mode="json"), "search": axis})
    trials = [replace(trial, sampled={"averaging": blocks[n % 2]}) for n, trial in enumerate(known.search_trials)]
    study = replace(known, study=config, trials=trials).to_optuna()
    assert {trial.params["averaging"] for trial in study.trials} == {
        '{"kind": "none"}',
        '{"decay": 0.9, "kind": "ema"}',
    }


def test_a_stored_study_is_replaced_by_its_own_later_state_but_not_by_a_different_study(tmp_path: Path) -> None:
    storage, known = f"sqlite:///{tmp_path}/optuna.db", results(3, seeds=0)
    for count in (2, 3):
        replace(known, trials=known.search_trials[:count]).to_optuna(storage)
    assert len(optuna.load_study(study_name="synthetic", storage=storage).trials) == 3
    with pytest.raises(DataError, match="contains a different study named synthetic"):
        replace(known, summary={**known.summary, "study_id": "other"}).to_optuna(storage)


def test_the_last_step_of_an_optuna_trial_is_its_last_epoch(study: optuna.Study) -> None:
    assert {trial.last_step for trial in study.trials if trial.state is TrialState.COMPLETE} == {EPOCHS}
