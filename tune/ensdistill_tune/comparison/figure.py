"""Figure of a comparison as one HTML file: each paired difference, the mean and its 95 % confidence interval."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from statistics import fmean

import plotly.graph_objects as go
from plotly.io import to_html

from ensdistill.runtime.files import write_text
from ensdistill_tune.comparison.result import ComparisonResult, PairResult
from ensdistill_tune.report.figures.axes import Scale, short
from ensdistill_tune.report.figures.style import BLUE, GRAY, GREEN, RED, new_figure
from ensdistill_tune.study.objectives import spoken

COLORS = {"better": GREEN, "worse": RED, "undecided": BLUE}


def write_figure(result: ComparisonResult) -> Path:
    """Writes differences.html, which loads nothing from the network.

    Returns:
        The file.
    """
    page: str = to_html(figure_of(result), include_plotlyjs=True, full_html=True)
    text = "".join(f"<p>{escape(str(pair))}</p>" for pair in result.pairs)
    file = result.folder / "differences.html"
    write_text(file, page.replace("<body>", f'<body style="font-family: sans-serif">{text}', 1))
    return file


def figure_of(result: ComparisonResult) -> go.Figure:
    """Returns the figure: one row for each pair of settings."""
    rows = result.pairs[::-1]
    labels = [escape(f"{pair.first} - {pair.other}: {pair.outcome}") for pair in rows]
    ends = [end for pair in rows for end in pair.interval if math.isfinite(end)]
    scale = Scale.of([], log=False, always=[0.0, *ends, *(d for pair in rows for d in pair.differences)])
    figure = new_figure(190 + 50 * len(rows))
    better = "left" if result.mode == "min" else "right"
    figure.update_xaxes(**scale.axis(f"difference in {spoken(result.metric)}; {better} is better"), tickformat="+.2~g")
    figure.update_yaxes(type="category", categoryarray=labels, range=[-0.6, len(rows) - 0.4])
    figure.add_vline(x=0, line={"color": GRAY, "width": 1.5, "dash": "dash"})
    for label, pair in zip(labels, rows, strict=True):
        _add_pair(figure, label, pair, result.first_seed)
    shown = set[str]()  # one legend entry for each kind of mark
    for trace in figure.data:
        trace.showlegend = trace.name not in shown
        shown.add(trace.name)
    return figure


def _add_pair(figure: go.Figure, label: str, pair: PairResult, first_seed: int) -> None:
    low, high = pair.interval
    if math.isfinite(low + high):
        line = {"color": COLORS[pair.outcome], "width": 3}
        ends = [short(low), short(high)]
        figure.add_scatter(x=ends, y=[label] * 2, mode="lines", line=line, name="95 % interval", hoverinfo="x")
    texts = [f"seed {first_seed + n}: {d:+.4f}" for n, d in enumerate(pair.differences)]
    marker = {"symbol": "circle-open", "size": 9, "color": GRAY}
    points = {"x": list(map(short, pair.differences)), "y": [label] * len(texts), "hovertext": texts}
    figure.add_scatter(**points, mode="markers", marker=marker, name="one seed", hoverinfo="text")
    mean = {"symbol": "diamond", "size": 11, "color": COLORS[pair.outcome]}
    at = {"x": [short(fmean(pair.differences))], "y": [label], "hovertext": [escape(str(pair))]}
    figure.add_scatter(**at, mode="markers", marker=mean, name="mean", hoverinfo="text")
