"""All figures of a report, in the order in which they are shown."""

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from ensdistill_tune.analysis.rank_correlation import SELECTED, selected
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.report.figures.classes import class_accuracy, confusion
from ensdistill_tune.report.figures.diagnostics import disagreement, reliability
from ensdistill_tune.report.figures.history import history, learning_curves, rungs_against_finals
from ensdistill_tune.report.figures.hyperparameters import importance, parallel_coordinates, slices
from ensdistill_tune.report.figures.results import confirmation, differences, pareto


@dataclass(frozen=True)
class ReportFigure:
    """One figure and what stands around it."""

    key: str
    title: str
    caption: str  # how to read it, in one sentence
    figure: go.Figure


FIGURES: dict[str, tuple[str, Callable[[StudyResults], go.Figure | None], str]] = {
    "history": (
        "Trial by trial",
        history,
        "Each mark is a trial at its last value, in the order in which they began; the line is the best so far, and"
        " what lies far out is drawn at the edge.",
    ),
    "importance": (
        "Which settings mattered",
        importance,
        "Share of the differences between trials that a setting explains alone, with its 90 % interval; the effect of"
        " a solid bar is significant at 5 %, corrected for the number of settings.",
    ),
    "slices": (
        "The main settings one by one",
        slices,
        "Every trial by the value of one setting: where the best marks gather the setting is best, a level cloud shows"
        " no effect; trials that were stopped are drawn at their last value.",
    ),
    "parallel": (
        "Settings that go together",
        parallel_coordinates,
        "Each line is a trial that ran to its end: where the blue lines of the best pass close together, they agree on"
        " a setting.",
    ),
    "curves": (
        "Learning curves",
        learning_curves,
        "The best three trials and the best baseline by name, all others in gray, with a mark where a trial was stopped"
        " or failed.",
    ),
    "rungs": (
        "Could early stopping be trusted?",
        rungs_against_finals,
        "How well the order of the trials at each comparison foretold their final order: 1 is the same order, 0 is"
        " none, bars are 95 % intervals.",
    ),
    "confirmation": (
        "Confirmation with fresh seeds",
        confirmation,
        "Each candidate again with fresh seeds: small marks are single seeds, large ones their mean, bars the 95 %"
        " interval of the mean.",
    ),
    "differences": (
        "Against the best baseline",
        differences,
        "Differences of the same seed in the mean: a candidate differs from the baseline for certain only if both bars"
        " leave out the dashed line.",
    ),
    "pareto": (
        "What quality costs",
        pareto,
        "The step line joins the trials that nobody beats in both: on its other side are those for which another one is"
        " as good in one and better in the other.",
    ),
    "reliability": (
        "Can its confidence be trusted?",
        reliability,
        "On the dotted line a network is right as often as it is sure; below it is too sure, above not sure enough;"
        " larger marks stand for more images.",
    ),
    "disagreement": (
        "Disagreement that the student kept",
        disagreement,
        "Images from those on which the teachers agree (left) to those on which they do not (right): a student that"
        " learnt their doubt rises on the right as the ensemble does.",
    ),
    "classes": (
        "Accuracy by class",
        class_accuracy,
        "Share of the images of each class that are classified correctly, the worst classes of the student at the top.",
    ),
    "confusion": (
        "Confusion matrices",
        confusion,
        "Number of images by true class (rows) and predicted class (columns); shades are shares of a row. Of many"
        " classes the most confused ones are shown.",
    ),
}


def figures(facts: StudyResults) -> list[ReportFigure]:
    """All figures that have something to show."""
    made = ((key, title, caption, draw(facts)) for key, (title, draw, caption) in FIGURES.items())
    return [
        ReportFigure(key, title, _more(key, caption, facts), figure) for key, title, caption, figure in made if figure
    ]


def _more(key: str, caption: str, facts: StudyResults) -> str:
    return f"{caption} {SELECTED}" if key == "rungs" and selected(facts.trials) else caption
