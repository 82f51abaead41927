"""The leaderboard of a study as CSV, and metrics formatted as text."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ensdistill.evaluation.plausibility import is_shown
from ensdistill_tune.analysis.replication import objective_vectors
from ensdistill_tune.formatting import is_block, short_value
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.search.pareto import pareto_front_indices
from ensdistill_tune.study.study_config import StudyConfig


def metric_cell(name: str, metrics: Mapping[str, float]) -> str:
    """Returns a metric as text, or an empty string if the metric is missing or is meaningless at chance level."""
    return format_metric(name, metrics[name]) if name in metrics and is_shown(name, metrics) else ""


def mark_of(trial: TrialRecord, study: StudyConfig, front: Sequence[TrialRecord]) -> str:
    """Returns the suffix of a trial label: ` !` for a broken constraint, ` *` on the Pareto front, otherwise empty."""
    return " !" if study.violation(trial.last) else " *" if trial in front else ""


def pareto_front(trials: Sequence[TrialRecord], study: StudyConfig) -> list[TrialRecord]:
    """Returns the Pareto front of the completed trials; empty if there is only one objective.

    Trials that break a constraint are excluded.

    Args:
        trials: Completed trials.
        study: The settings.
    """
    trials = study.feasible(trials)
    return (
        [trials[n] for n in pareto_front_indices(objective_vectors(trials, study))]
        if study.secondary_objectives and trials
        else []
    )


def format_metric(name: str, value: float) -> str:
    """Returns a metric as text: four decimals, or a short form such as `1.23M` for a cost."""
    if not name.startswith("cost/"):
        return f"{value:.4f}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def leaderboard_csv(
    study: StudyConfig, trials: Sequence[TrialRecord], teachers: Mapping[str, Mapping[str, float]]
) -> str:
    """Returns the leaderboard as CSV; cells of missing values are empty.

    Completed trials come first, ordered by rank. Trials that have not completed follow, and then the teachers.

    Args:
        study: The settings.
        trials: Baselines and search trials.
        teachers: Metrics of the ensemble and of a single teacher, keyed by label.
    """
    order = study.rank(trials)
    front = pareto_front(order, study)
    rest = sorted((trial for trial in trials if trial not in order), key=lambda trial: trial.number)
    columns = [
        "rank",
        "trial",
        "state",
        "baseline",
        "epochs",
        *study.display_metrics,
        *(["pareto"] if study.secondary_objectives else []),
        *(["feasible"] if study.constraints else []),
    ]
    columns += ["cpu_hours", "gpu_hours"]
    columns += [*study.search, *(["schedule"] if study.scheduler.kind == "pbt" else []), "config_hash", "error"]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for rank, trial in enumerate([*order, *rest], 1):
        row: dict[str, Any] = {name: trial.last.get(name, "") for name in study.display_metrics}
        row |= {name: short_value(value) if is_block(value) else value for name, value in trial.sampled.items()}
        row |= {"rank": rank if trial in order else "", "trial": trial.number, "state": trial.state}
        row |= {"baseline": trial.baseline or "", "epochs": int(trial.last.get("epoch", 0))}
        row |= {"cpu_hours": f"{trial.cpu_seconds / 3600:.6g}", "gpu_hours": f"{trial.gpu_seconds / 3600:.6g}"}
        row |= {"config_hash": trial.config_hash, "error": trial.error or ""}
        row |= {"schedule": json.dumps(trial.schedule) if trial.schedule else ""} if "schedule" in columns else {}
        row |= {"feasible": int(not study.violation(trial.last))} if study.constraints and trial.epochs else {}
        table.writerow(row | ({"pareto": int(trial in front)} if study.secondary_objectives else {}))
    for label, metrics in teachers.items():
        own = {name: metrics.get(name.removeprefix("val/"), "") for name in study.display_metrics}
        table.writerow({"trial": label, **own})
    return text.getvalue()
