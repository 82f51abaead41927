"""Warnings about the trials of a study, computed from their metrics.

To add a rule about several trials, write one function and list it in `STUDY_RULES`. Rules about a single student are in
`ensdistill.evaluation.plausibility`; this module applies them to the exported student.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from ensdistill.errors import ConfigIssue
from ensdistill.evaluation.plausibility import Metrics, TeacherMetrics, is_at_chance, student_warnings
from ensdistill.evaluation.tables import summarize_teachers
from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.records.trial_record import PRIMARY, TrialRecord, of_kind
from ensdistill_tune.study.study_config import StudyConfig

StudyRule = Callable[[StudyConfig, Sequence[TrialRecord], TeacherMetrics, int], ConfigIssue | None]

NO_DISTILLATION = "no distillation won"  # `of_study` selects warnings by these two prefixes
WORSE = "worse than one teacher"


def of_study(warnings: Iterable[ConfigIssue]) -> list[ConfigIssue]:
    """Selects the warnings that compare the students of a study with each other or with the teachers.

    Args:
        warnings: Warnings of a study.
    """
    return [issue for issue in warnings if issue.rule.startswith((NO_DISTILLATION, WORSE))]


def won_without_teachers(study: StudyConfig, order: Sequence[TrialRecord]) -> bool:
    """Returns whether training on labels alone ranks first although at least one trial uses another loss.

    Args:
        study: The settings.
        order: Trials, best first.
    """
    kinds = (study.config_for(trial).loss.kind for trial in order)
    return next(kinds, None) == "labels" and any(kind != "labels" for kind in kinds)


def is_worse(rows: Sequence[Metrics], teacher: Metrics) -> bool:
    """Returns whether the mean calibrated NLL of a student is higher than the mean over the teachers.

    Args:
        rows: Metrics of the student, one row per seed.
        teacher: Means of the metrics over the teachers.

    Returns:
        True if the student's NLL is higher; False otherwise, and also if a metric is missing or a network is at chance
        level.
    """
    if not rows or is_at_chance(*rows) or is_at_chance(teacher) or not all("cnll" in row for row in (*rows, teacher)):
        return False
    return fmean(row["cnll"] for row in rows) > teacher["cnll"]


def _no_distillation_won(
    study: StudyConfig, trials: Sequence[TrialRecord], _: TeacherMetrics, __: int
) -> ConfigIssue | None:
    order, rows = _standing(study, trials)
    if not rows or is_at_chance(*rows) or not won_without_teachers(study, order):
        return None
    others = "every distilled student"
    rule = f"{NO_DISTILLATION}: `labels` is at least as good as {others} on the validation images"
    return ConfigIssue((), rule, hint="train students longer (training.epochs), or use better teachers")


def _worse_than_one_teacher(
    study: StudyConfig, trials: Sequence[TrialRecord], teachers: TeacherMetrics, _: int
) -> ConfigIssue | None:
    known, (__, rows) = summarize_teachers(teachers), _standing(study, trials)
    if known is None or not is_worse(rows, known.mean):
        return None
    own, one = fmean(row["cnll"] for row in rows), known.mean["cnll"]
    rule = (
        f"{WORSE}: the best student has a calibrated NLL of {own:.4f} on the validation images; the mean over the "
        f"teachers is {one:.4f}"
    )
    hint = "train students longer (training.epochs), or use a larger network (model) or unlabeled images"
    return ConfigIssue((), rule, hint=hint)


def _standing(study: StudyConfig, trials: Sequence[TrialRecord]) -> tuple[list[TrialRecord], list[Metrics]]:
    """Returns the confirmed trials, best first, and the validation metrics of the best trial, one row per seed.

    If there was no confirmation, all completed baselines and search trials are returned instead.
    """
    own, replicates = of_kind(trials, *PRIMARY), of_kind(trials, "replicate")
    confirmed = confirmation_of(own, replicates, study).candidates if replicates else ()
    order = [candidate.trial for candidate in confirmed] or study.rank(own)
    best = confirmed[0].replicates if confirmed else order[:1]
    return order, [_of_validation(trial) for trial in best]


def _of_validation(trial: TrialRecord) -> Metrics:
    return {name.removeprefix("val/"): value for name, value in trial.last.items() if name.startswith("val/")}


STUDY_RULES: tuple[StudyRule, ...] = (_no_distillation_won, _worse_than_one_teacher)


def trial_warnings(
    study: StudyConfig, trials: Sequence[TrialRecord], best: TrialRecord | None, teachers: TeacherMetrics, classes: int
) -> tuple[ConfigIssue, ...]:
    """Returns warnings about the students of a study, based on their validation metrics.

    Args:
        study: The settings.
        trials: All trials so far: baselines, search trials and replicates.
        best: The trial whose student is exported; None if no trial has completed.
        teachers: Metrics of the ensemble, as returned by `Evaluator.teachers`.
        classes: Number of classes.
    """
    of_all = [issue for rule in STUDY_RULES if (issue := rule(study, trials, teachers, classes))]
    if best is None:
        return tuple(of_all)
    return (*of_all, *student_warnings(_of_validation(best), teachers, classes))
