"""Results of a study as DataFrames; columns that also exist in Optuna are named as in Optuna."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ensdistill_tune.analysis.trial_times import TrialTimes
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

if TYPE_CHECKING:
    import pandas as pd

FIRST = ("number", "state", "kind", "baseline")  # first columns of the trials DataFrame


def trials_dataframe(
    study: StudyConfig, trials: Sequence[TrialRecord], times: Mapping[int, TrialTimes]
) -> pd.DataFrame:
    """Returns a DataFrame with one row for each trial.

    Args:
        study: The settings.
        trials: The trials, in the order of the rows.
        times: Start and end times of each trial, keyed by trial number.
    """
    values = value_columns(study)
    columns = [*FIRST, *values, "datetime_start", "datetime_complete", "duration", "epochs"]
    columns += [f"params_{name}" for name in study.search]
    rows = [_row(trial, values) | _times(times.get(trial.number)) | _params(trial) | trial.last for trial in trials]
    return _frame(rows, columns, ("config_hash", "error"), drop=("epoch",))


def history_dataframe(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """Returns a DataFrame with one row for each epoch of each trial; the row contains all metrics after that epoch."""
    rows = [
        {"number": trial.number, **epoch, "epoch": int(epoch["epoch"])} for trial in trials for epoch in trial.epochs
    ]
    return _frame(rows, ["number", "epoch"], (), drop=("epochs",))


def replicates_dataframe(
    study: StudyConfig, replicates: Sequence[TrialRecord], times: Mapping[int, TrialTimes]
) -> pd.DataFrame:
    """Returns a DataFrame with one row for each replicate of the confirmation.

    Args:
        study: The settings.
        replicates: The replicates, in the order of the rows.
        times: Start and end times of each replicate, keyed by trial number.
    """
    values = value_columns(study)
    columns = ["number", "replicate_of", "seed", "state", "baseline", *values]
    columns += ["datetime_start", "datetime_complete", "duration", "epochs"]
    rows = [
        _row(trial, values)
        | _times(times.get(trial.number))
        | {"replicate_of": trial.replicate_of, "seed": trial.seed}
        | trial.last
        for trial in replicates
    ]
    return _frame(rows, columns, ("config_hash", "error"), drop=("epoch", "kind"))


def value_columns(study: StudyConfig) -> dict[str, str]:
    """Returns the objectives, keyed by column name: `value` if there is only one, otherwise `values_<metric>`."""
    if len(study.objectives) == 1:
        return {"value": study.objective}
    return {f"values_{name}": name for name in study.objectives}


def _row(trial: TrialRecord, values: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(trial, name) for name in (*FIRST, "config_hash", "error")}
    return row | {column: trial.value(metric) for column, metric in values.items()}


def _times(times: TrialTimes | None) -> dict[str, Any]:
    if times is None:
        return {}
    return {"datetime_start": times.start, "datetime_complete": times.complete, "duration": times.duration}


def _params(trial: TrialRecord) -> dict[str, Any]:
    return {f"params_{name}": value for name, value in trial.settings_at_last.items()}


def _frame(rows: Iterable[dict[str, Any]], first: list[str], last: Sequence[str], drop: Sequence[str]) -> pd.DataFrame:
    """Returns a DataFrame with the columns `first`, then all other columns, then `last`; omits the columns in `drop`.

    The column `epochs` contains the number of the last reported epoch.
    """
    import pandas as pd  # imported here, because it is slow

    rows = [row | ({"epochs": int(row.get("epoch", 0))} if "epochs" in first else {}) for row in rows]
    found = dict.fromkeys(name for row in rows for name in row)
    columns = [*first, *(name for name in found if name not in (*first, *last)), *last]
    return pd.DataFrame(rows, columns=[name for name in columns if name not in drop])
