"""Results as DataFrames with the columns of Optuna: one row per trial, epoch or replicate."""

from dataclasses import replace

import pandas as pd
import pytest

from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.trial_times import TrialTimes, trial_times
from ensdistill_tune.records.events import TrialEnded, TrialResumed, TrialStarted
from tests.unit.report.synthetic import EPOCHS, facts


@pytest.fixture(scope="module")
def known() -> StudyResults:
    made = facts(20)
    return replace(made, times={trial.number: TrialTimes(1e9, 1e9 + trial.number) for trial in made.trials})


def test_the_trials_dataframe_has_the_same_columns_as_that_of_optuna(known: StudyResults) -> None:
    frame = known.trials_dataframe()
    assert list(frame["number"]) == [trial.number for trial in known.trials]
    assert {"state", "value", "datetime_start", "datetime_complete", "duration"} <= set(frame.columns)
    assert [c for c in frame.columns if c.startswith("params_")] == [f"params_{name}" for name in known.study.search]
    finished = frame[frame.state == "finished"]
    assert (finished["value"] == finished["val/nll"]).all()
    assert (finished["epochs"] == EPOCHS).all()
    assert frame[frame.state != "finished"]["value"].isna().all()
    assert list(frame["duration"].dt.total_seconds()) == list(frame["number"])


def test_the_value_of_an_inactive_setting_is_missing(known: StudyResults) -> None:
    searched = known.trials_dataframe().query("kind == 'search'")
    without = searched["params_averaging.kind"] == "none"
    assert (searched["params_averaging.decay"].isna() == without).all()


def test_rows_of_baselines_contain_a_name_and_no_searched_settings(known: StudyResults) -> None:
    baselines = known.trials_dataframe().query("kind == 'baseline'")
    assert list(baselines["baseline"]) == ["kd", "latentbe"]
    assert baselines.filter(like="params_").isna().all(axis=None)


def test_the_epochs_dataframe_has_all_metrics(known: StudyResults) -> None:
    frame = known.history_dataframe()
    every = [*known.trials, *known.replicates]
    assert list(frame.columns[:2]) == ["number", "epoch"]
    assert len(frame) == sum(len(trial.epochs) for trial in every)
    last = frame.groupby("number")["val/nll"].last()
    assert dict(last) == {trial.number: trial.last["val/nll"] for trial in every if trial.epochs}


def test_means_of_the_replicate_rows_equal_the_candidate_means(known: StudyResults) -> None:
    means = known.replicates_dataframe().groupby("replicate_of")["value"].mean()
    assert dict(means) == pytest.approx({c.trial.number: c.mean("val/nll") for c in known.confirmed})


def test_each_of_several_objectives_has_a_column() -> None:
    frame = facts(8, secondary_objectives=["cost/flops"], costs=True).trials_dataframe()
    assert "value" not in frame
    assert frame.loc[frame.state == "finished", "values_cost/flops"].gt(0).all()


def test_without_replicates_or_epochs_dataframes_are_empty_but_have_columns() -> None:
    empty = replace(facts(1, seeds=0), trials=[])
    for frame in (empty.trials_dataframe(), empty.history_dataframe(), empty.replicates_dataframe()):
        assert isinstance(frame, pd.DataFrame)
        assert frame.empty
        assert "number" in frame


def test_the_duration_of_a_trial_is_from_its_first_start_to_its_last_end() -> None:
    events = [
        TrialStarted(at=10, trial=1),
        TrialEnded(at=20, trial=1, state="interrupted"),
        TrialResumed(at=100, trial=1),
        TrialStarted(at=101, trial=2),
    ]
    assert trial_times(events) == {1: TrialTimes(10), 2: TrialTimes(101)}
    assert trial_times([*events, TrialEnded(at=130, trial=1, state="finished")])[1] == TrialTimes(10, 130)
