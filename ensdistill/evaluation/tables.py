"""The metrics of students and teachers as tables on a screen, and tables in Markdown."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from ensdistill.evaluation.corruptions import SEVERITIES
from ensdistill.evaluation.evaluator import Metrics, mean_metrics
from ensdistill.evaluation.labels import TEACHER_MEAN, ensemble_label
from ensdistill.evaluation.latency import InferenceCost
from ensdistill.evaluation.plausibility import is_shown
from ensdistill.runtime.formatting import file_size, in_millions

SHOWN = ("accuracy", "nll", "brier", "ece", "cnll", "cece", "dee", "top1_agreement")


@dataclass(frozen=True)
class TeacherSummary:
    """What tables show of an ensemble."""

    teachers: int  # M
    ensemble: Metrics
    mean: Metrics  # of single teachers


def summarize_teachers(metrics: Mapping[str, Any]) -> TeacherSummary | None:
    """Returns the summary of what `Evaluator.teachers` gives, or None without teachers."""
    members = metrics.get("members")
    return TeacherSummary(len(members), metrics["ensemble"], mean_metrics(members)) if members else None


def teacher_rows(metrics: Mapping[str, Any]) -> dict[str, Metrics]:
    """The rows for what `Evaluator.teachers` gives: the ensemble, and one teacher in the mean; none without "
    "teachers."""
    known = summarize_teachers(metrics)
    return {ensemble_label(known.teachers): known.ensemble, TEACHER_MEAN: known.mean} if known else {}


def teachers_in_words(metrics: Mapping[str, Any]) -> str:
    """What 1, 2, ..., M of the teachers are worth, and how much they differ."""
    curve = " ".join(f"{value:.4f}" for value in metrics["curve"])
    together = metrics["ensemble"]
    return (
        f"cNLL of 1, 2, ... of them (for dee): {curve}\n"
        f"they differ by KL {together['diversity']:.4f}, mutual information {together['mutual_information']:.4f} nats"
    )


def student_in_words(metrics: Metrics) -> str:
    """What a student costs, and how much its subnetworks differ where it still has several."""
    words = f"student: {metrics['parameters']:,.0f} parameters, {in_millions(metrics['flops'])} MFLOP an image"
    if "diversity" in metrics:
        words += f"; its subnetworks differ by KL {metrics['diversity']:.4f} nats"
    return words


def metrics_table(split: str, rows: Mapping[str, Metrics], own: Sequence[str] = ()) -> Table:
    """One row a network; an empty cell for what a row does not have, or what means nothing of a network at chance.

    own: names of metrics of the user's own.
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
    """One row a corruption and one for their mean, for each network of what `evaluate_corruptions` gives."""
    table = Table(title="under corruption: accuracy / NLL", title_justify="left")
    for column in ("", "corruption", *(f"severity {severity}" for severity in SEVERITIES)):
        table.add_column(column, justify="left" if column in ("", "corruption") else "right")
    for who, corruptions in worse.items():
        means = [mean_metrics(rows) for rows in zip(*corruptions.values(), strict=True)]
        for name, rows in {**corruptions, "mean": means}.items():
            table.add_row(who, name, *[f"{row['accuracy']:.4f} / {row['nll']:.4f}" for row in rows])
    return table


def price_table(prices: Mapping[str, InferenceCost]) -> Table:
    """One row a network: what it weighs, and what one image and one batch cost."""
    batches = next(iter(prices.values())).milliseconds
    table = Table(title="cost", title_justify="left")
    for column in ("", "weights", "parameters", "MFLOP an image", *(f"ms, batch of {batch}" for batch in batches)):
        table.add_column(column, justify="right" if column else "left")
    for who, price in prices.items():
        table.add_row(who, *price.in_words())
    return table


def file_table(sizes: Mapping[str, int], differences: Mapping[str, float]) -> Table:
    """One row a file of an export: its size, and the largest difference of a logit from the student's."""
    table = Table(title="files", title_justify="left")
    for column in ("", "size", "largest logit difference"):
        table.add_column(column, justify="right" if column else "left")
    for name, size in sizes.items():
        table.add_row(name, file_size(size), f"{differences[name]:.1e}" if name in differences else "")
    return table


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: Collection[str] = ()) -> str:
    """A table in Markdown: figures to the right, the first column and those named in `texts` to the left."""
    sides = ["---" if n == 0 or name in texts else "---:" for n, name in enumerate(head)]
    lines = [head, sides, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_text(words: str) -> str:
    """Words that may come from outside, such as names of files, as one line of Markdown that shows them as they are."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", " ".join(words.split()))
