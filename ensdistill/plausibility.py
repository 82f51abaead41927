"""Warnings about trained networks, computed from their metrics.

To add a rule: one function, and its name in `TEACHER_RULES` or `STUDENT_RULES`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ensdistill.errors import ConfigIssue

Metrics = Mapping[str, float]  # of one network: "accuracy", "nll", ...
TeacherMetrics = Mapping[str, Any]  # what `Examiner.teachers` returns; empty without teachers

TeacherRule = Callable[[TeacherMetrics, int], ConfigIssue | None]
StudentRule = Callable[[Metrics, TeacherMetrics, int], ConfigIssue | None]

TEACHER_RULES: tuple[TeacherRule, ...] = ()
STUDENT_RULES: tuple[StudentRule, ...] = ()


def teacher_warnings(teachers: TeacherMetrics, classes: int) -> tuple[ConfigIssue, ...]:
    """Returns what seems wrong with an ensemble.

    Args:
        teachers: What `Examiner.teachers` returns.
        classes: Number of classes.
    """
    found = (rule(teachers, classes) for rule in TEACHER_RULES) if teachers else ()
    return tuple(issue for issue in found if issue)


def student_warnings(student: Metrics, teachers: TeacherMetrics, classes: int) -> tuple[ConfigIssue, ...]:
    """Returns what seems wrong with one student.

    Args:
        student: Metrics of the student as it ships.
        teachers: What `Examiner.teachers` returns on the same images.
        classes: Number of classes.
    """
    found = (rule(student, teachers, classes) for rule in STUDENT_RULES)
    return tuple(issue for issue in found if issue)
