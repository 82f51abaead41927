"""Warnings about trained networks, computed from their metrics.

To add a rule: one function, and its name in `TEACHER_RULES` or `STUDENT_RULES`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ensdistill.errors import ConfigIssue, teacher_name
from ensdistill.runtime.formatting import percent
from ensdistill.runtime.text import listed, verb

Metrics = Mapping[str, float]  # of one network: "accuracy", "nll", ...
TeacherMetrics = Mapping[str, Any]  # what `Evaluator.teachers` returns; empty without teachers

TeacherRule = Callable[[TeacherMetrics, int], ConfigIssue | None]
StudentRule = Callable[[Metrics, TeacherMetrics, int], ConfigIssue | None]

AT_CHANCE = "at chance"  # how the rule of a warning about such a network begins
NOT_IDENTIFIED = "temperature not identified"
VALUES = 4  # of teachers that are stated one by one
CALIBRATED = ("cnll", "cbrier", "cece", "dee")  # of a network at chance these mean nothing


def is_at_chance(*rows: Metrics) -> bool:
    """Returns whether all of these networks are no better than chance, as far as their metrics have it."""
    return bool(rows) and all(row.get("at_chance", row.get("val/at_chance")) == 1 for row in rows)


def is_shown(name: str, *rows: Metrics) -> bool:
    """Returns whether a metric of these networks, seeds of one setting, is worth showing."""
    return not (name.removeprefix("val/") in CALIBRATED and is_at_chance(*rows))


def is_identified(row: Metrics) -> bool:
    """Returns whether validation images determine the temperature of a network, as far as its metrics have it.

    A record of a trial has no `temperature_identified`; its images are those of validation, and no temperature is
    identified there if all of them are classified correctly.
    """
    return row.get("temperature_identified", float(row.get("accuracy", 0.0) < 1)) == 1


def _teachers_at_chance(teachers: TeacherMetrics, _: int) -> ConfigIssue | None:
    guessing = [m for m, row in enumerate(teachers["members"]) if is_at_chance(row)]
    if not guessing:
        return None
    right = listed((percent(teachers["members"][m]["accuracy"], 1) for m in guessing), VALUES)
    which = f"{_numbered(guessing)} {verb(len(guessing))} right on {right} of the validation images"
    rule = f"{AT_CHANCE}: {which}, no more often than a guess"
    hint = (
        "train longer or at another teachers.training.optimizer.lr; of a file check mean, std and the order of "
        "its classes"
    )
    return ConfigIssue(("teachers",), rule, hint=hint)


def _teachers_that_mislead(teachers: TeacherMetrics, classes: int) -> ConfigIssue | None:
    rows = teachers["members"]
    misleading = [m for m, row in enumerate(rows) if row["nll"] > 1.01 * math.log(max(2, classes))]
    misleading = [m for m in misleading if not is_at_chance(rows[m])]
    if not misleading:
        return None
    nll = listed((f"{rows[m]['nll']:.4g}" for m in misleading), VALUES)
    whose = "its" if len(misleading) == 1 else "their"
    uniform = f"{math.log(max(2, classes)):.4g}"
    rule = f"NLL of {_numbered(misleading)} on validation images is {nll}, worse than the {uniform} of uniform guesses"
    fix = "check mean and std of files, or raise teachers.training.optimizer.weight_decay"
    hint = f"{whose} probabilities are far too sure: {fix}"
    return ConfigIssue(("teachers",), rule, hint=hint)


def _student_at_chance(student: Metrics, _: TeacherMetrics, __: int) -> ConfigIssue | None:
    if not is_at_chance(student):
        return None
    right = percent(student["accuracy"], 1)
    rule = f"{AT_CHANCE}: the student is right on {right} of the images, no more often than a guess"
    hint = "train longer, lower training.optimizer.lr, or check that images and labels belong together"
    return ConfigIssue((), rule, hint=hint)


def _temperature_not_identified(student: Metrics, teachers: TeacherMetrics, _: int) -> ConfigIssue | None:
    rows = {"the student": student, "the ensemble": teachers.get("ensemble", {})}
    which = [who for who, row in rows.items() if not is_identified(row) and not is_at_chance(row)]
    if not which:
        return None
    rule = f"{NOT_IDENTIFIED}: the validation images do not determine that of {' and '.join(which)}"
    hint = "cNLL, cBrier, cECE and DEE hold for a temperature of 1, or for 0.05 or 20; use more validation images"
    return ConfigIssue((), rule, hint=hint)


def _numbered(members: Sequence[int]) -> str:
    """`teacher 1` or `teachers 1, 3`: people count from 1."""
    return teacher_name(members[0]) if len(members) == 1 else f"teachers {', '.join(str(m + 1) for m in members)}"


TEACHER_RULES: tuple[TeacherRule, ...] = (_teachers_at_chance, _teachers_that_mislead)
STUDENT_RULES: tuple[StudentRule, ...] = (_student_at_chance, _temperature_not_identified)


def teacher_warnings(teachers: TeacherMetrics, classes: int) -> tuple[ConfigIssue, ...]:
    """Returns what seems wrong with an ensemble.

    Args:
        teachers: What `Evaluator.teachers` returns.
        classes: Number of classes.
    """
    found = (rule(teachers, classes) for rule in TEACHER_RULES) if teachers else ()
    return tuple(issue for issue in found if issue)


def student_warnings(student: Metrics, teachers: TeacherMetrics, classes: int) -> tuple[ConfigIssue, ...]:
    """Returns what seems wrong with one student.

    Args:
        student: Metrics of the student as it ships.
        teachers: What `Evaluator.teachers` returns on the same images.
        classes: Number of classes.
    """
    found = (rule(student, teachers, classes) for rule in STUDENT_RULES)
    return tuple(issue for issue in found if issue)
