"""All figures of the report, in display order."""

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
    """One figure with its key, title and caption."""

    key: str
    title: str
    caption: str  # how to read the figure
    figure: go.Figure


FIGURES: dict[str, tuple[str, Callable[[StudyResults], go.Figure | None], str]] = {
    "history": (
        "Optimization history",
        history,
        "Each mark shows the last value of a trial, in order of start time; the line shows the best value so far."
        " Outliers are drawn at the edge of the plot.",
    ),
    "importance": (
        "Importance of settings",
        importance,
        "Share of the variance between trials that each setting alone explains, with a 90 % interval. A solid bar "
        "means that the effect is significant at 5 %, corrected for the number of settings.",
    ),
    "slices": (
        "Objective by setting",
        slices,
        "Objective of every trial against the value of one setting. A region with many good marks is promising; the "
        "absence of a visible trend suggests little effect. Stopped trials are drawn at their last value.",
    ),
    "parallel": (
        "Combinations of settings",
        parallel_coordinates,
        "Each line is a completed trial. Where the blue lines are close together, the best trials have similar values.",
    ),
    "curves": (
        "Learning curves",
        learning_curves,
        "The three best trials and the best baseline are colored, and all others are gray. A mark shows where a trial "
        "was stopped or failed.",
    ),
    "rungs": (
        "Reliability of early stopping",
        rungs_against_finals,
        "Correlation between the ranking of the trials at each rung and their final ranking: 1 means identical "
        "rankings, and 0 means unrelated rankings. Bars are 95 % confidence intervals.",
    ),
    "confirmation": (
        "Confirmation with fresh seeds",
        confirmation,
        "Results of each candidate with fresh seeds: small marks show individual seeds, large marks show their mean, "
        "and bars show the 95 % confidence interval of the mean.",
    ),
    "differences": (
        "Difference from the best baseline",
        differences,
        "Result of each candidate minus the result of the best baseline with the same seed: small marks show "
        "individual seeds, and large marks show their mean. A difference is statistically significant only if its bar "
        "does not cross the dashed line. A missing bar means that there are too few seeds for a decision.",
    ),
    "pareto": (
        "Quality and cost",
        pareto,
        "The step line connects the trials on the Pareto front. For each of these trials, no other trial is better in "
        "both objectives.",
    ),
    "reliability": (
        "Reliability diagram",
        reliability,
        "Marks on the dotted line represent perfect calibration, marks below it overconfidence, and marks above it "
        "underconfidence. Larger marks represent more images.",
    ),
    "disagreement": (
        "Inherited uncertainty",
        disagreement,
        "Images are ordered by the disagreement of the teachers, lowest on the left. If a student has inherited the"
        " teachers' uncertainty, its curve rises to the right like the curve of the ensemble.",
    ),
    "classes": (
        "Accuracy by class",
        class_accuracy,
        "Share of correctly classified images in each class; the student's worst classes are at the top.",
    ),
    "confusion": (
        "Confusion matrices",
        confusion,
        "Number of images by true class (rows) and predicted class (columns); the shade shows each number as a share "
        "of the images in its row. If there are many classes, only the most frequently confused classes are shown.",
    ),
}


def figures(facts: StudyResults) -> list[ReportFigure]:
    """Returns all figures that have data."""
    made = ((key, title, caption, draw(facts)) for key, (title, draw, caption) in FIGURES.items())
    return [
        ReportFigure(key, title, _more(key, caption, facts), figure) for key, title, caption, figure in made if figure
    ]


def _more(key: str, caption: str, facts: StudyResults) -> str:
    return f"{caption} {SELECTED}" if key == "rungs" and selected(facts.trials) else caption
