"""Winner, best baseline and ensemble side by side: how far their confidence can be trusted, and where they doubt."""

from collections.abc import Iterator

import plotly.graph_objects as go

from ensdistill_tune.report.facts import Facts
from ensdistill_tune.report.figures.scales import short
from ensdistill_tune.report.figures.style import BASELINE, GREY, TEACHERS, WINNER, new_figure

LARGEST = 22  # pixels of the mark of the fullest bin


def reliability(facts: Facts) -> go.Figure | None:
    """How often they are right when they are so sure; the larger the mark, the more images."""
    if not facts.portraits:
        return None
    figure = new_figure(420)
    figure.update_xaxes(title_text="confidence", range=[-0.03, 1.05], nticks=6)
    figure.update_yaxes(title_text="accuracy", range=[-0.03, 1.07], nticks=6)
    ideal = {"color": GREY, "dash": "dot", "width": 1.5}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=ideal, name="as it should be", hoverinfo="skip")
    for label, (colour, dash, mark) in _who(facts):
        one = facts.portraits["who"][label]
        confidence, accuracy, counts = zip(*one["reliability"], strict=True)
        sizes = [max(5, round(LARGEST * (count / max(counts)) ** 0.5)) for count in counts]
        figure.add_scatter(
            x=[short(x) for x in confidence],
            y=[short(y) for y in accuracy],
            mode="lines+markers",
            line={"color": colour, "dash": dash},
            marker={"symbol": mark, "size": sizes, "opacity": 0.75},
            name=f"{label}, ECE {one['ece']:.3f}",
            customdata=counts,
            hovertemplate="sure %{x:.1%}, right %{y:.1%}, %{customdata} images",
        )
    return figure


def disagreement(facts: Facts) -> go.Figure | None:
    """How unsure each is in every tenth of the images, from those on which the teachers agree to those they do not."""
    if not facts.portraits:
        return None
    told, tenths = facts.portraits["disagreement"], list(range(1, 11))
    figure = new_figure(400)
    figure.update_xaxes(title_text="tenth of the images", tickvals=tenths)
    figure.update_yaxes(title_text="nats", rangemode="tozero", nticks=6)
    for label, (colour, dash, mark) in _who(facts):
        values = [short(value) for value in told["entropy"][label]]
        look = {"line": {"color": colour, "dash": dash, "width": 2}, "marker": {"symbol": mark, "size": 7}}
        figure.add_scatter(x=tenths, y=values, mode="lines+markers", name=f"doubt of {label}", **look)
    line, values = {"color": GREY, "dash": "dot", "width": 2}, [short(value) for value in told["teachers"]]
    figure.add_scatter(x=tenths, y=values, mode="lines", name="disagreement of the teachers", line=line)
    return figure.update_traces(hovertemplate="%{y:.3f} nats in tenth %{x}")


def _who(facts: Facts) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """The winner, the best baseline beside it, and the ensemble, each with its looks."""
    known = list(facts.portraits["who"])
    ranks = [c.label for c in facts.confirmed] or [f"baseline {t.baseline}" for t in facts.order if t.baseline]
    baselines = [name for name in [*ranks, *known] if name.startswith("baseline ") and name in known[1:]]
    ensembles = [name for name in known[1:] if name.startswith("ensemble")]
    yield known[0], WINNER
    yield from ((name, BASELINE) for name in baselines[:1])
    yield from ((name, TEACHERS) for name in ensembles[:1])
