"""Figures of calibration and uncertainty; each shows the winner, the best baseline and the ensemble."""

from collections.abc import Iterator

import plotly.graph_objects as go

from ensdistill_tune.analysis.labels import label_of
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.records.result_rows import Diagnostics, NetworkDiagnostics
from ensdistill_tune.report.figures.axes import short
from ensdistill_tune.report.figures.style import BASELINE, GRAY, TEACHERS, WINNER, new_figure

LARGEST = 22  # size in pixels of the mark for the bin with the most images


def reliability(facts: StudyResults) -> go.Figure | None:
    """Draws accuracy against confidence; larger marks represent more images."""
    if not facts.diagnostics:
        return None
    figure = new_figure(420)
    figure.update_xaxes(title_text="confidence", range=[-0.03, 1.05], nticks=6)
    figure.update_yaxes(title_text="accuracy", range=[-0.03, 1.07], nticks=6)
    ideal = {"color": GRAY, "dash": "dot", "width": 1.5}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=ideal, name="calibrated", hoverinfo="skip")
    for one, label, (color, dash, mark) in shown_networks(facts, facts.diagnostics):
        confidence, accuracy, counts = zip(*one.reliability, strict=True)
        sizes = [max(5, round(LARGEST * (count / max(counts)) ** 0.5)) for count in counts]
        figure.add_scatter(
            x=[short(x) for x in confidence],
            y=[short(y) for y in accuracy],
            mode="lines+markers",
            line={"color": color, "dash": dash},
            marker={"symbol": mark, "size": sizes, "opacity": 0.75},
            name=f"{label}, ECE {one.ece:.3f}",
            customdata=counts,
            hovertemplate="confidence %{x:.1%}, accuracy %{y:.1%}, %{customdata} images",
        )
    return figure


def disagreement(facts: StudyResults) -> go.Figure | None:
    """Draws the mean entropy in each tenth of the images, which are ordered by how much the teachers disagree."""
    if not facts.diagnostics:
        return None
    tenths = list(range(1, 11))
    figure = new_figure(400)
    figure.update_xaxes(title_text="tenth of the images", tickvals=tenths)
    figure.update_yaxes(title_text="nats", rangemode="tozero", nticks=6)
    for one, label, (color, dash, mark) in shown_networks(facts, facts.diagnostics):
        values = [short(value) for value in one.entropy]
        look = {"line": {"color": color, "dash": dash, "width": 2}, "marker": {"symbol": mark, "size": 7}}
        figure.add_scatter(x=tenths, y=values, mode="lines+markers", name=f"entropy of {label}", **look)
    line, values = {"color": GRAY, "dash": "dot", "width": 2}, [short(value) for value in facts.diagnostics.teachers]
    figure.add_scatter(x=tenths, y=values, mode="lines", name="disagreement of the teachers", line=line)
    return figure.update_traces(hovertemplate="%{y:.3f} nats in tenth %{x}")


def shown_networks(
    facts: StudyResults, drawn: Diagnostics
) -> Iterator[tuple[NetworkDiagnostics, str, tuple[str, str, str]]]:
    """Yields the winner, the best baseline and the ensemble, each with its label and line style."""
    winner, *others = drawn.networks
    ranks = [c.trial.number for c in facts.confirmed] or [trial.number for trial in facts.order]
    baselines = [one for one in others if one.kind == "candidate"]
    baselines.sort(key=lambda one: ranks.index(one.trial) if one.trial in ranks else len(ranks))
    ensembles = [one for one in others if one.kind == "ensemble"]
    for one, looks in ((winner, WINNER), *((b, BASELINE) for b in baselines[:1]), *((e, TEACHERS) for e in ensembles)):
        yield one, label_of(one, facts.trials, facts.ensemble_size), looks
