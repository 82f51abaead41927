"""Tags, parameters and metrics of a study's MLflow runs, computed from the event log.

Settings that all trials share (data, teachers, fixed model and training settings) are parameters of the parent run. The
parameters of a trial's run are the method, the settings in the study file, and the searched settings.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ensdistill.config import flatten
from ensdistill.errors import ConfigError
from ensdistill.evaluation.metrics import BUILT_IN
from ensdistill.runtime.secrets import without_credentials
from ensdistill_tune.formatting import is_block, short_value
from ensdistill_tune.metric_names import final_metric, log_name
from ensdistill_tune.records.events import Event, SessionEnded, TeachersReady, TrialEnded
from ensdistill_tune.records.trial_index import TrialIndex
from ensdistill_tune.records.trial_record import METRICS, OVER, PRIMARY, HoursUsed, TrialRecord
from ensdistill_tune.study.objectives import LATENCY, PHOTO_LATENCY
from ensdistill_tune.study.study_config import SHARED, StudyConfig
from ensdistill_tune.tracking.standing import Standing, standings

CURVES = ("train/loss", *METRICS, "subnetworks/nll", "subnetworks/accuracy")  # one point for each epoch
COSTS = ("cost/parameters", "cost/flops", LATENCY, PHOTO_LATENCY)  # of the exported network, one point for each trial
TEACHERS = tuple(name.removeprefix("val/") for name in METRICS if name != "val/dee")  # their DEE is fixed: 1 or M


@dataclass(frozen=True, slots=True)  # slots, because a study has one instance for each event
class RunUpdate:
    """One event, with the trials, tags and metrics of the study after this event."""

    event: Event
    trial: TrialRecord | None
    facts: Mapping[str, str] = field(default_factory=dict)  # tags that all runs of the study share
    trials: Mapping[int, TrialRecord] = field(default_factory=dict)
    parent: dict[str, float] = field(default_factory=dict)  # metrics of the parent run
    step: int = 0  # number of ended trials
    standings: Mapping[int, Standing] = field(default_factory=dict)  # empty except at the end of a session

    @classmethod
    def of(cls, event: Event, index: TrialIndex, facts: dict[str, str], study: StudyConfig) -> "RunUpdate":
        """Applies an event to records and facts, and returns the resulting update of the runs."""
        trial, trials = index.apply(event), index.trials
        if isinstance(event, TeachersReady):
            facts.update(event.hashes)
        if isinstance(event, SessionEnded):
            return cls(event, trial, facts, trials, standings=standings(trials, event, study))
        if (
            not isinstance(event, TrialEnded) or event.state not in OVER
        ):  # other events change no metric of the parent run
            return cls(event, trial, facts, trials)
        parent = index.hours.metrics
        counts = {state: index.count([state], *PRIMARY) for state in OVER}
        parent |= {f"trials/{state}": float(count) for state, count in counts.items() if count}
        for best in study.feasible([index.best] if index.best else []):
            parent[f"best/{study.objective.removeprefix('val/')}_so_far"] = best.last[study.objective]
        step = index.count(OVER, *PRIMARY, "replicate")
        return cls(event, trial, facts, trials, parent, step)


def tags_of(trial: TrialRecord, name: str, study: StudyConfig, settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags of a trial's run. A trial and its replicates have the same `seed_group`.

    Args:
        trial: The trial.
        name: Name of the study.
        study: The settings of the study.
        settings: The parameters of the run.
    """
    seed = settings.get("seed")
    tags = {
        "kind": "trial" if trial.replicate_of is None else "confirmation",
        "trial": str(trial.number),
        "preset": trial.baseline or study.preset,
        "seed": str(study.base_config.seed if seed is None else seed),
        "seed_group": f"{name} {trial.baseline or format(trial.replicate_of or trial.number, '03d')}",
        "config_hash": trial.config_hash,
    }
    tags |= {"baseline": trial.baseline} if trial.baseline else {}
    if trial.replicate_of is None:
        return tags
    label = f"baseline {trial.baseline}" if trial.baseline else f"{trial.replicate_of:03d}"
    return tags | {"replicate_of": str(trial.replicate_of), "candidate": label}


def settings_of(trial: TrialRecord, study: StudyConfig) -> dict[str, Any]:
    """Returns the parameters of a trial's run.

    For MLflow's charts, the parameters include the logarithm of each log-uniform hyperparameter, and a short string for
    each block of settings.
    """
    blocks = {name: short_value(value) for name, value in trial.sampled.items() if is_block(value)}
    try:
        settings = flatten(study.config_for(trial).model_dump(mode="json"))
    except ConfigError:
        return dict(trial.sampled) | blocks  # the settings conflict; the trial's error reports this
    own = ["seed", *study.search, *flatten(study.config)]
    settings = {name: value for name, value in settings.items() if _is_below(name, own) or not _is_shared(name)}
    logs = {log_name(name): round(math.log10(settings[name]), 4) for name in study.logarithmic if settings.get(name)}
    return settings | logs | blocks


def settings_of_study(study: StudyConfig) -> dict[str, Any]:
    """Returns the parameters of the parent run: the study file, and all settings that its trials share."""
    fixed = flatten(study.base_config.model_dump(mode="json"))
    shared = {name: value for name, value in fixed.items() if _is_shared(name) and not _is_below(name, study.search)}
    own = flatten(study.model_dump(mode="json", exclude_none=True))
    return {name: value for name, value in own.items() if name.removeprefix("config.") not in shared} | shared


def curves_of(report: Mapping[str, float], study: StudyConfig) -> dict[str, float]:
    """Returns the metrics to log for an epoch: common metrics, objectives, constraints and custom metrics."""
    own = [*(name for name in study.display_metrics if name.startswith("val/")), *_own_metrics(report)]
    return {name: report[name] for name in dict.fromkeys([*CURVES, *own]) if name in report}


def outcome_of(trial: TrialRecord, state: str, error: str | None, study: StudyConfig) -> dict[str, str]:
    """Returns the tags of an ended trial: its state, its error, and whether it meets the constraints."""
    tags = {"outcome": state} | ({"error": error} if error else {})
    if study.constraints and trial.epochs and state != "failed":
        broken = study.broken_by(trial.last)
        tags |= {"feasible": str(not broken).lower()} | ({"broken_constraints": "; ".join(broken)} if broken else {})
    return tags


def totals_of(trial: TrialRecord, state: str, study: StudyConfig) -> dict[str, float]:
    """Returns the metrics of an ended trial: its costs, and `final/...` if it completed."""
    if state == "interrupted" or not trial.epochs:
        return {}
    totals = {name: trial.last[name] for name in COSTS if name in trial.last}
    seconds = [epoch["time/epoch_seconds"] for epoch in trial.epochs if "time/epoch_seconds" in epoch]
    totals |= {"time/epoch_seconds": median(seconds)} if seconds else {}
    totals |= HoursUsed.of([trial]).metrics
    own = [*(name for name in study.display_metrics if name.startswith("val/")), *_own_metrics(trial.last)]
    finals = {final_metric(name): trial.last[name] for name in own if name in trial.last}
    return totals | (finals if state == "finished" else {})


def teachers_of(event: TeachersReady) -> dict[str, float]:
    """Returns `teachers/ensemble_nll`, `teachers/mean_nll`, ... for the metrics that students also have."""
    rows = {"ensemble": event.ensemble, "mean": event.teacher_mean}
    return {f"teachers/{who}_{name}": row[name] for who, row in rows.items() for name in TEACHERS if name in row}


def address_of(server: str) -> str:
    """Returns the address of a server's web pages, without user name and password."""
    return re.sub(r"(://)[^/@]*@", r"\1", without_credentials(server)).rstrip("/")


def _own_metrics(report: Mapping[str, float]) -> list[str]:
    """Returns the validation metrics that are not built in but listed in `config.metrics` of the study file."""
    known = (*METRICS, "val/at_chance", *(f"val/{name}" for name in BUILT_IN))
    return [name for name in report if name.startswith("val/") and name not in known]


def _is_below(name: str, blocks: Iterable[str]) -> bool:
    """Returns whether a dotted name is one of these blocks, or the name of a setting inside one of them."""
    return any(f"{name}.".startswith(f"{block}.") for block in blocks)


def _is_shared(name: str) -> bool:
    return name.split(".")[0] in SHARED
