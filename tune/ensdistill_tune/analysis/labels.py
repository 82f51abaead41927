"""Labels of trials and of result rows, for tables, figures and sentences. No code parses a label."""

from collections.abc import Sequence

from ensdistill.evaluation.labels import TEACHER_MEAN, ensemble_label
from ensdistill_tune.records.result_rows import Subject, TestMetrics
from ensdistill_tune.records.trial_record import TrialRecord


def trial_label(trial: TrialRecord) -> str:
    """Returns the label of a trial, such as `baseline kd` or `024`."""
    return f"baseline {trial.baseline}" if trial.baseline else f"{trial.number:03d}"


def label_of(subject: Subject, trials: Sequence[TrialRecord], teachers: int) -> str:
    """Returns the label of a subject in tables and figures.

    Args:
        subject: The subject of a result row: a candidate, the mean over the teachers or the ensemble.
        trials: Trials of the study, including the subject's trial.
        teachers: Number of teachers in the ensemble.
    """
    if subject.kind == "candidate":
        return trial_label(next(trial for trial in trials if trial.number == subject.trial))
    return TEACHER_MEAN if subject.kind == "teacher_mean" else ensemble_label(teachers)


def labeled(
    rows: Sequence[TestMetrics], trials: Sequence[TrialRecord], teachers: int
) -> dict[str, list[dict[str, float]]]:
    """Returns the metrics of each row, keyed by the label of its subject."""
    return {label_of(row, trials, teachers): row.metrics for row in rows}
