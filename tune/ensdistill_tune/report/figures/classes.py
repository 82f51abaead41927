"""Winner and ensemble by class: accuracies and confusion matrices."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.records.result_rows import Diagnostics, NetworkDiagnostics
from ensdistill_tune.report.figures.axes import short
from ensdistill_tune.report.figures.diagnostics import shown_networks
from ensdistill_tune.report.figures.style import lined, new_figure

MOST = 20  # maximum number of classes in the accuracy figure; the worst classes are shown
LONGEST = 16  # maximum length of a class name in characters
SHADES = [[0, "rgba(0,114,178,0)"], [1, "rgba(0,114,178,0.6)"]]  # transparent: text is readable on any background


def class_name(drawn: Diagnostics, number: int) -> str:
    """Returns the shortened name of a class, escaped because Plotly interprets some HTML."""
    name = drawn.class_names[number] if number < len(drawn.class_names) else str(number)
    return escape(name if len(name) <= LONGEST else name[: LONGEST - 1] + "…")


def class_accuracy(facts: StudyResults) -> go.Figure | None:
    """Draws the accuracies of at most MOST classes, with the winner's worst class at the top."""
    drawn = facts.diagnostics
    if not drawn or not drawn.networks or not drawn.networks[0].class_accuracy:
        return None
    known = [(value, n) for n, value in enumerate(drawn.networks[0].class_accuracy) if value is not None]
    numbers = [n for _, n in sorted(known)[:MOST]][::-1]
    figure = new_figure(150 + 24 * len(numbers))
    figure.update_xaxes(title_text="accuracy", tickformat=".0%", nticks=6)
    figure.update_yaxes(tickvals=list(range(len(numbers))), ticktext=[class_name(drawn, n) for n in numbers])
    for one, label, (color, _, mark) in shown_networks(facts, drawn):
        values = [one.class_accuracy[n] for n in numbers]
        figure.add_scatter(
            x=[None if value is None else short(value) for value in values],
            y=list(range(len(numbers))),
            mode="markers",
            marker={"color": color, "symbol": mark, "size": 9, "opacity": 0.8},
            name=label,
            hovertemplate="%{y}: %{x:.1%}",
        )
    return figure


def confusion(facts: StudyResults) -> go.Figure | None:
    """Draws the confusion matrices of the winner and the ensemble for the same classes, one above the other."""
    drawn = facts.diagnostics
    if not drawn or not drawn.networks or not drawn.networks[0].confusion:
        return None
    subjects = [(one, label) for one, label, _ in shown_networks(facts, drawn)]
    pair = [subjects[0], *(row for row in subjects[1:] if row[0].kind == "ensemble")]
    names = [class_name(drawn, n) for n in drawn.confused]
    predicted = [*names, "others"] if _has_others(pair) else names
    size = 110 + 26 * len(names)
    figure = new_figure(len(pair) * size + 50, margin={"l": 8, "r": 14, "t": 36, "b": 8})
    figure.set_subplots(
        len(pair), 1, vertical_spacing=110 / (len(pair) * size), subplot_titles=[label for _, label in pair]
    )
    for row, (one, label) in enumerate(pair, 1):
        heatmap, counts = _matrix(one, label, predicted)
        figure.add_trace(heatmap, row=row, col=1).add_trace(counts, row=row, col=1)
    lined(figure).update_xaxes(title_text="predicted class", tickvals=list(range(len(names) + 1)), showgrid=False)
    figure.update_xaxes(ticktext=predicted, constrain="domain")
    figure.update_yaxes(title_text="true class", tickvals=list(range(len(names))), ticktext=names, showgrid=False)
    return figure.update_yaxes(autorange="reversed")


def _has_others(pair: Sequence[tuple[NetworkDiagnostics, str]]) -> bool:
    return any(row[-1] for one, _ in pair for row in one.confusion)


def _matrix(one: NetworkDiagnostics, label: str, names: Sequence[str]) -> tuple[go.Heatmap, go.Scatter]:
    """Returns the cells, each shaded by its share of the row, and the counts as text in the page's text color."""
    rows = [row[: len(names)] for row in one.confusion]
    shares = [[short(count / max(1, sum(row))) for count in row] for row in rows]
    heatmap = go.Heatmap(z=shares, colorscale=SHADES, zmin=0, zmax=1, showscale=False, name=label, xgap=1, ygap=1)
    heatmap.update(customdata=rows, hovertemplate="true %{y}, predicted %{x}: %{customdata} images, %{z:.1%}")
    cells = [(x, y, count) for y, row in enumerate(rows) for x, count in enumerate(row) if count]
    x, y, counts = ([cell[k] for cell in cells] for k in range(3))
    text = [str(count) for count in counts]
    return heatmap, go.Scatter(x=x, y=y, text=text, mode="text", showlegend=False, hoverinfo="skip")
