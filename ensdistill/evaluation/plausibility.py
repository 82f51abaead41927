"""Warnings about trained networks, based on their metrics.

To add a rule, write one function and add its name to `TEACHER_RULES` or `STUDENT_RULES`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ensdistill.errors import ConfigIssue, teacher_name
from ensdistill.runtime.formatting import percent
from ensdistill.runtime.text import listed, verb

Metrics = Mapping[str, float]  # metrics of one network: "accuracy", "nll", ...
TeacherMetrics = Mapping[str, Any]  # result of `Evaluator.teachers`; empty without teachers

TeacherRule = Callable[[TeacherMetrics, int], ConfigIssue | None]
StudentRule = Callable[[Metrics, TeacherMetrics, int], ConfigIssue | None]

AT_CHANCE = "at chance"  # start of the warning about a network that is no better than chance
NOT_IDENTIFIED = "temperature not identified"
VALUES = 4  # maximum number of teachers whose values a warning lists
CALIBRATED = ("cnll", "cbrier", "cece", "dee")  # metrics that are meaningless for a network at chance


def is_at_chance(*rows: Metrics) -> bool:
    """Returns whether all of these networks are no better than chance; False if the metrics lack `at_chance`."""
    return bool(rows) and all(row.get("at_chance", row.get("val/at_chance")) == 1 for row in rows)


def is_shown(name: str, *rows: Metrics) -> bool:
    """Returns whether a metric of these networks (several seeds of one configuration) is meaningful."""
    return not (name.removeprefix("val/") in CALIBRATED and is_at_chance(*rows))


def is_identified(row: Metrics) -> bool:
    """Returns whether the validation images suffice to fit the temperature of a network's predictions.

    The validation metrics in a trial record do not contain `temperature_identified`. For such metrics, the temperature
    counts as identified unless all validation images are classified correctly.
    """
    return row.get("temperature_identified", float(row.get("accuracy", 0.0) < 1)) == 1


def _teachers_at_chance(teachers: TeacherMetrics, _: int) -> ConfigIssue | None:
    """Returns a warning if teachers are no better than chance."""
    guessing = [m for m, row in enumerate(teachers["members"]) if is_at_chance(row)]
    if not guessing:
        return None
    right = listed((percent(teachers["members"][m]["accuracy"], 1) for m in guessing), VALUES)
    which = f"{_numbered(guessing)} {verb(len(guessing))} correct on {right} of the validation images"
    rule = f"{AT_CHANCE}: {which}, no better than random guesses"
    hint = (
        "train longer, or change teachers.training.optimizer.lr; for a network from a file, check mean, std and the "
        "order of its classes"
    )
    return ConfigIssue(("teachers",), rule, hint=hint)


def _teachers_that_mislead(teachers: TeacherMetrics, classes: int) -> ConfigIssue | None:
    """Returns a warning if teachers have a higher NLL than uniform predictions."""
    rows = teachers["members"]
    misleading = [m for m, row in enumerate(rows) if row["nll"] > 1.01 * math.log(max(2, classes))]
    misleading = [m for m in misleading if not is_at_chance(rows[m])]
    if not misleading:
        return None
    nll = listed((f"{rows[m]['nll']:.4g}" for m in misleading), VALUES)
    whose = "its" if len(misleading) == 1 else "their"
    uniform = f"{math.log(max(2, classes)):.4g}"
    rule = (
        f"NLL of {_numbered(misleading)} on validation images is {nll}, worse than the NLL of uniform predictions "
        f"({uniform})"
    )
    fix = "check mean and std of networks from files, or raise teachers.training.optimizer.weight_decay"
    hint = f"{whose} probabilities are strongly overconfident: {fix}"
    return ConfigIssue(("teachers",), rule, hint=hint)


def _student_at_chance(student: Metrics, _: TeacherMetrics, __: int) -> ConfigIssue | None:
    """Returns a warning if the student is no better than chance."""
    if not is_at_chance(student):
        return None
    right = percent(student["accuracy"], 1)
    rule = f"{AT_CHANCE}: the student is correct on {right} of the images, no better than random guesses"
    hint = "train longer, lower training.optimizer.lr, or check that the labels match the images"
    return ConfigIssue((), rule, hint=hint)


def _temperature_not_identified(student: Metrics, teachers: TeacherMetrics, _: int) -> ConfigIssue | None:
    """Returns a warning if the validation images do not determine a temperature."""
    rows = {"the student": student, "the ensemble": teachers.get("ensemble", {})}
    which = [name for name, row in rows.items() if not is_identified(row) and not is_at_chance(row)]
    if not which:
        return None
    rule = f"{NOT_IDENTIFIED}: the validation images do not determine the temperature of {' and '.join(which)}"
    hint = (
        "use more validation images; cNLL, cBrier, cECE and DEE were computed at temperature 1 or at a bound "
        "(0.05 or 20)"
    )
    return ConfigIssue((), rule, hint=hint)


def _numbered(members: Sequence[int]) -> str:
    """Returns `teacher 1` or `teachers 1, 3`; teachers are numbered from 1."""
    return teacher_name(members[0]) if len(members) == 1 else f"teachers {', '.join(str(m + 1) for m in members)}"


TEACHER_RULES: tuple[TeacherRule, ...] = (_teachers_at_chance, _teachers_that_mislead)
STUDENT_RULES: tuple[StudentRule, ...] = (_student_at_chance, _temperature_not_identified)


def teacher_warnings(teachers: TeacherMetrics, classes: int) -> tuple[ConfigIssue, ...]:
    """Returns the warnings about an ensemble.

    Args:
        teachers: Result of `Evaluator.teachers`.
        classes: Number of classes.
    """
    found = (rule(teachers, classes) for rule in TEACHER_RULES) if teachers else ()
    return tuple(issue for issue in found if issue)


def student_warnings(student: Metrics, teachers: TeacherMetrics, classes: int) -> tuple[ConfigIssue, ...]:
    """Returns the warnings about one student.

    Args:
        student: Metrics of the merged student.
        teachers: Result of `Evaluator.teachers` on the same images.
        classes: Number of classes.
    """
    found = (rule(student, teachers, classes) for rule in STUDENT_RULES)
    return tuple(issue for issue in found if issue)
