"""Thumbnails for report.html: images with the student's largest errors or largest differences from the ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass

from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.records.result_rows import Diagnostics, ImageDiagnostics

LONGEST = 24  # maximum length of a class name in characters


@dataclass(frozen=True)
class Picture:
    """One thumbnail and the lines of text below it; the page template escapes this text."""

    source: str  # PNG data URI
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Thumbnails under one heading."""

    key: str
    title: str
    caption: str
    pictures: Sequence[Picture]


def galleries(facts: StudyResults) -> list[Gallery]:
    """Returns the galleries that contain images, built from diagnostics.json."""
    drawn = facts.diagnostics
    if not drawn:
        return []
    where = f"{drawn.split} images"
    parts = [
        Gallery(
            "wrong",
            "Images with the largest error",
            f"Misclassified {where} on which the student in `best/` has the highest NLL; probabilities are in "
            "parentheses.",
            [_picture(one, drawn, "NLL") for one in drawn.wrong],
        ),
        Gallery(
            "disputed",
            "Images with the largest disagreement",
            f"{where.capitalize()} with the largest KL divergence from the ensemble to the student in `best/`.",
            [_picture(one, drawn, "KL") for one in drawn.disputed],
        ),
    ]
    return [part for part in parts if part.pictures]


def _picture(one: ImageDiagnostics, drawn: Diagnostics, quantity: str) -> Picture:
    lines = [f"true: {_name(drawn, one.label)}", f"student: {_predicted(drawn, one.student)}"]
    lines += [f"ensemble: {_predicted(drawn, one.ensemble)}"] if one.ensemble else []
    return Picture(one.thumbnail, [*lines, f"{quantity} {one.value:.2f}, image {one.index}"])


def _predicted(drawn: Diagnostics, prediction: tuple[int, float]) -> str:
    return f"{_name(drawn, prediction[0])} ({prediction[1]:.2f})"


def _name(drawn: Diagnostics, number: int) -> str:
    if not 0 <= number < len(drawn.class_names):
        return str(number) if number >= 0 else "unknown"
    name = drawn.class_names[number]
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
