"""Tables of student and teacher metrics, for terminals and Markdown."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from ensdistill.evaluation.corruptions import SEVERITIES
from ensdistill.evaluation.inference_cost import BATCHES, InferenceCost
from ensdistill.evaluation.labels import TEACHER_MEAN, ensemble_label
from ensdistill.evaluation.metric_values import Metrics, mean_metrics
from ensdistill.evaluation.plausibility import is_shown
from ensdistill.runtime.formatting import file_size, in_millions

SHOWN = ("accuracy", "nll", "brier", "ece", "cnll", "cece", "dee", "top1_agreement")


@dataclass(frozen=True)
class TeacherSummary:
    """Metrics of an ensemble, as shown in tables.

    Attributes:
        teachers: Number of teachers M.
        ensemble: Metrics of the ensemble.
        mean: Metrics averaged over the teachers.
    """

    teachers: int
    ensemble: Metrics
    mean: Metrics


def summarize_teachers(metrics: Mapping[str, Any]) -> TeacherSummary | None:
    """Returns a summary of teacher metrics from `Evaluator.teachers`; None if there are no teachers."""
    members = metrics.get("members")
    return TeacherSummary(len(members), metrics["ensemble"], mean_metrics(members)) if members else None


def teacher_rows(metrics: Mapping[str, Any]) -> dict[str, Metrics]:
    """Returns the rows for the ensemble and the mean over its teachers, keyed by label; empty without teachers.

    Args:
        metrics: Result of `Evaluator.teachers`.
    """
    known = summarize_teachers(metrics)
    return {ensemble_label(known.teachers): known.ensemble, TEACHER_MEAN: known.mean} if known else {}


def teachers_in_words(metrics: Mapping[str, Any]) -> str:
    """Returns two lines of text: the calibrated NLL of 1, 2, ..., M teachers, and the diversity of the ensemble.

    Args:
        metrics: Result of `Evaluator.teachers`.
    """
    curve = " ".join(f"{value:.4f}" for value in metrics["curve"])
    ensemble = metrics["ensemble"]
    return (
        f"cNLL of 1, 2, ... teachers (defines dee): {curve}\n"
        f"teacher diversity: mean pairwise KL {ensemble['diversity']:.4f} nats, "
        f"mutual information {ensemble['mutual_information']:.4f} nats"
    )


def student_in_words(metrics: Metrics) -> str:
    """Returns one line of text: the cost of a student and, if it has several subnetworks, their diversity.

    Args:
        metrics: Result of `Evaluator.student`.
    """
    words = f"student: {metrics['parameters']:,.0f} parameters, {in_millions(metrics['flops'])} MFLOP per image"
    if "diversity" in metrics:
        words += f"; mean pairwise KL of its subnetworks {metrics['diversity']:.4f} nats"
    return words


def metrics_table(split: str, rows: Mapping[str, Metrics], own: Sequence[str] = ()) -> Table:
    """Returns a table with one row per network.

    A cell is empty if the row lacks the metric, or if the metric is meaningless because the network is no better than
    chance.

    Args:
        split: Name of the split in the title.
        rows: Metrics of each network, keyed by label.
        own: Names of user-defined metrics.
    """
    names = (*SHOWN, *own)
    table = Table(title=f"on {split} images", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for row, metrics in rows.items():
        shown = [name for name in names if name in metrics and is_shown(name, metrics)]
        table.add_row(row, *[f"{metrics[name]:.4f}" if name in shown else "" for name in names])
    return table


def corruption_table(worse: Mapping[str, Mapping[str, Sequence[Metrics]]]) -> Table:
    """Returns a table that has, for each network, one row per corruption and one row for the mean.

    Args:
        worse: Results of `evaluate_corruptions`, keyed by the label of the network.
    """
    table = Table(title="under corruption: accuracy / NLL", title_justify="left")
    for column in ("", "corruption", *(f"severity {severity}" for severity in SEVERITIES)):
        table.add_column(column, justify="left" if column in ("", "corruption") else "right")
    for label, corruptions in worse.items():
        means = [mean_metrics(rows) for rows in zip(*corruptions.values(), strict=True)]
        for name, rows in {**corruptions, "mean": means}.items():
            table.add_row(label, name, *[f"{row['accuracy']:.4f} / {row['nll']:.4f}" for row in rows])
    return table


def price_table(prices: Mapping[str, InferenceCost]) -> Table:
    """Returns a table with one row per network: size, operations per image, and time per batch."""
    table = Table(title="cost", title_justify="left")
    for column in ("", "weights", "parameters", "MFLOP per image", *(f"ms, batch of {batch}" for batch in BATCHES)):
        table.add_column(column, justify="right" if column else "left")
    for label, price in prices.items():
        table.add_row(label, *price.in_words())
    return table


def file_table(sizes: Mapping[str, int], differences: Mapping[str, float]) -> Table:
    """Returns a table with one row per exported file: size, and largest difference from the student's logits.

    Args:
        sizes: Size of each file in bytes, keyed by file name.
        differences: Largest absolute logit difference, keyed by file name.
    """
    table = Table(title="files", title_justify="left")
    for column in ("", "size", "largest logit difference"):
        table.add_column(column, justify="right" if column else "left")
    for name, size in sizes.items():
        table.add_row(name, file_size(size), f"{differences[name]:.1e}" if name in differences else "")
    return table


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: Collection[str] = ()) -> str:
    """Returns a table in Markdown.

    Args:
        head: Names of the columns.
        rows: Cells of each row.
        texts: Names of the columns that are left-aligned, like the first column; all others are right-aligned.
    """
    sides = ["---" if n == 0 or name in texts else "---:" for n, name in enumerate(head)]
    lines = [head, sides, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_text(words: str) -> str:
    """Returns untrusted text, such as a file name, as one line of Markdown with all markup escaped."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", " ".join(words.split()))
