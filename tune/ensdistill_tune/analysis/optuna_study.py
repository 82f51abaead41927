"""Conversion to an Optuna study, for Optuna's plots, dashboard and importance evaluators."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ensdistill.errors import DataError
from ensdistill_tune.analysis.trial_times import TrialTimes
from ensdistill_tune.records.events import State
from ensdistill_tune.records.trial_record import TrialRecord, rank_trials
from ensdistill_tune.search.optuna_study import directions_of, silent_study
from ensdistill_tune.search.suggester import REQUEST, choice_of, distribution_of
from ensdistill_tune.study.study_config import StudyConfig

STATES: dict[State, TrialState] = {
    "running": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.WAITING,  # the next session continues an interrupted trial
}


def to_optuna(
    study: StudyConfig,
    name: str,
    identity: str,
    trials: Sequence[TrialRecord],
    times: Mapping[int, TrialTimes],
    storage: str | None = None,
) -> optuna.Study:
    """Returns an Optuna study with these trials.

    Args:
        study: The settings.
        name: Name of the study.
        identity: Identifier of the study, independent of its name.
        trials: The trials, ordered by number; the objectives of baselines become user attributes of the Optuna study.
        times: Start and end times of each trial, keyed by trial number.
        storage: URL of an Optuna RDB storage; None keeps the study in memory. An earlier copy of the study in this
            storage is replaced.

    Raises:
        DataError: The storage contains a different study with this name.
    """
    if storage is not None:
        _remove_copy(name, identity, storage)
    made = silent_study(directions_of(study.modes), study_name=name, storage=storage)
    made.set_user_attr("study_id", identity)
    made.set_user_attr("objectives", study.objectives)
    for baseline in rank_trials((t for t in trials if t.baseline), study.objective, study.mode):
        made.set_user_attr(f"baseline {baseline.baseline}", [baseline.last[name] for name in study.objectives])
    searched = (trial for trial in trials if trial.kind == "search")
    made.add_trials([_trial(trial, n, study, times[trial.number]) for n, trial in enumerate(searched)])
    return made


def _remove_copy(name: str, identity: str, storage: str) -> None:
    if name not in optuna.get_all_study_names(storage):
        return
    if optuna.load_study(study_name=name, storage=storage).user_attrs.get("study_id") != identity:
        raise DataError(f"storage {storage}: contains a different study named {name}. Choose another storage.")
    optuna.delete_study(study_name=name, storage=storage)


def _trial(trial: TrialRecord, number: int, study: StudyConfig, times: TrialTimes) -> FrozenTrial:
    state = STATES[trial.state]
    over: datetime | None = times.complete if state.is_finished() else None
    params = {name: choice_of(study.search[name], value) for name, value in trial.sampled.items()}
    single = len(study.objectives) == 1
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=_values(trial, study),
        datetime_start=None if state is TrialState.WAITING else times.start,
        datetime_complete=over,
        params=params,
        distributions={name: distribution_of(study.search[name]) for name in params},
        user_attrs=dict(_attributes(trial)),
        system_attrs={},
        intermediate_values={int(e["epoch"]): e[study.objective] for e in trial.epochs} if single else {},
    )


def _values(trial: TrialRecord, study: StudyConfig) -> list[float] | None:
    """Returns the objectives of a completed trial, or the last intermediate value of a pruned trial, as in Optuna."""
    pruned = trial.state == "pruned" and len(study.objectives) == 1
    if not trial.epochs or not (trial.state == "finished" or pruned):
        return None
    return [trial.last[name] for name in study.objectives]


def _attributes(trial: TrialRecord) -> Iterator[tuple[str, Any]]:
    """Yields user attributes, such as the trial number, the metrics after the last epoch, and the error."""
    yield "trial", trial.number
    yield "config_hash", trial.config_hash
    yield "enqueued", REQUEST in trial.memory
    yield from trial.last.items()
    yield from ((n, getattr(trial, n)) for n in ("schedule", "parent", "replaces", "error") if getattr(trial, n))
