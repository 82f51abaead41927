"""Warnings about the trials of a study, computed from their metrics.

To add a rule about several trials: one function, and its name in `STUDY_RULES`. Rules about one student are those of
`ensdistill.plausibility`; here they judge the student that ships.
"""

from collections.abc import Callable, Sequence

from ensdistill.errors import ConfigIssue
from ensdistill.plausibility import TeacherMetrics, student_warnings
from ensdistill_tune.record import TrialRecord
from ensdistill_tune.space import Study

StudyRule = Callable[[Study, Sequence[TrialRecord], TeacherMetrics, int], ConfigIssue | None]

STUDY_RULES: tuple[StudyRule, ...] = ()


def trial_warnings(
    study: Study, trials: Sequence[TrialRecord], best: TrialRecord | None, teachers: TeacherMetrics, classes: int
) -> tuple[ConfigIssue, ...]:
    """Returns what seems wrong with the students of a study, on validation images.

    Args:
        study: The study.
        trials: All its trials so far: baselines, search and repeats.
        best: The trial whose student ships, if a trial has run to its end.
        teachers: What `Examiner.teachers` returned for the ensemble.
        classes: Number of classes.
    """
    of_all = [issue for rule in STUDY_RULES if (issue := rule(study, trials, teachers, classes))]
    if best is None:
        return tuple(of_all)
    metrics = {name.removeprefix("val/"): value for name, value in best.last.items() if name.startswith("val/")}
    return (*of_all, *student_warnings(metrics, teachers, classes))
