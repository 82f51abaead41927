"""Style of all figures: colors, marks, names, hover texts.

The colors are from the palette of Okabe and Ito (2008), which is designed for color-blind readers. Only colors that are
visible on both white and black backgrounds are used. Color is never the only cue. Backgrounds are transparent and text
has no fixed color: the page sets `font.color`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.formatting import short_name, short_value
from ensdistill_tune.records.events import State
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.report.figures.axes import Scale, short
from ensdistill_tune.study.study_config import StudyConfig

BLUE, GREEN, ORANGE, RED, PINK = "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
GRAY = "#8c8c8c"
FAINT = "rgba(140,140,140,0.25)"
NOTHING = "rgba(0,0,0,0)"
WINNER, BASELINE, TEACHERS = (BLUE, "solid", "circle"), (RED, "dashdot", "square"), (GREEN, "dot", "diamond")  # styles
ENDS: dict[State, tuple[str, str, str]] = {  # end of a trial: label, color, mark
    "finished": ("completed", BLUE, "circle"),
    "pruned": ("stopped early", PINK, "triangle-down-open"),
    "failed": ("failed", GRAY, "x"),
    "running": ("still running", GREEN, "circle-open"),
    "interrupted": ("interrupted", GREEN, "circle-open-dot"),
}
FEWEST = 4  # minimum number of completed trials from which a scale is derived
CROWD = 200  # number of marks or lines above which they are drawn fainter


def new_figure(height: int = 380, **layout: Any) -> go.Figure:
    """Returns an empty figure in the common style."""
    legend: dict[str, Any] = {
        "orientation": "h",
        "x": 0,
        "yref": "container",
        "y": 0,
        "yanchor": "bottom",
        "bgcolor": NOTHING,
    }
    legend |= {"itemwidth": 46}  # wide enough for a complete period of each dash pattern
    margin = {"l": 8, "r": 14, "t": 14, "b": 8}
    looks: dict[str, Any] = {"template": "none", "paper_bgcolor": NOTHING, "plot_bgcolor": NOTHING}
    looks |= {"height": height, "margin": margin, "legend": legend, "hoverlabel": {"align": "left"}}
    return lined(go.Figure(layout=looks | layout))


def lined(figure: go.Figure) -> go.Figure:
    """Applies the common line style to all axes of a figure."""
    looks: dict[str, Any] = {"gridcolor": FAINT, "zeroline": False, "linecolor": GRAY, "tickcolor": GRAY}
    looks |= {"automargin": True, "title_standoff": 8}
    return figure.update_xaxes(**looks).update_yaxes(**looks)


def label(trial: TrialRecord) -> str:
    """Returns the number of a trial, such as `017`, or the name of a baseline."""
    return trial.baseline or f"{trial.number:03d}"


def spread(facts: StudyResults, always: Sequence[float] = ()) -> Scale:
    """Returns the scale of the objective for the completed search trials, or for all trials if too few have completed.

    A trial that was stopped early can therefore be off the scale; it is drawn at the edge. Losses are drawn on a
    logarithmic scale, because the best losses lie close together.
    """
    metric, trials = facts.study.objective, facts.search_order
    if len(trials) < FEWEST:
        trials = [trial for trial in facts.trials if trial.epochs and trial.state != "failed"]
    return Scale.of((trial.last[metric] for trial in trials), log=facts.study.mode == "min", always=always)


def height(trial: TrialRecord, facts: StudyResults, scale: Scale) -> float:
    """Returns the height of a trial: its last value or, if the trial failed, the worst end of the scale."""
    if trial.state == "failed":
        return scale.worst(facts.study.mode)
    return scale.clip(trial.last[facts.study.objective])


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Returns short names, such as `averaging` for `averaging.kind`, or full names where short names would be equal."""
    found = {name: short_name(name) for name in names}
    often = Counter(found.values())
    return {name: name if often[last] > 1 else last for name, last in found.items()}


def hover(trial: TrialRecord, study: StudyConfig) -> str:
    """Returns the hover text of a trial."""
    after = f" after epoch {trial.last['epoch']:.0f}" if trial.epochs and trial.state != "finished" else ""
    lines = [f"<b>{'baseline' if trial.baseline else 'trial'} {label(trial)}</b> {ENDS[trial.state][0]}{after}"]
    lines += [f"{study.objective.split('/')[1]} {trial.last[study.objective]:.4f}"] if trial.epochs else []
    lines += [f"{name} {short_value(value)}" for name, value in trial.settings_at_last.items()]
    return "<br>".join(lines)


def by_state(trials: Iterable[TrialRecord]) -> Mapping[State, list[TrialRecord]]:
    """Groups trials by final state, in the order of ENDS."""
    every = list(trials)
    found = {state: [trial for trial in every if trial.state == state] for state in ENDS}
    return {state: some for state, some in found.items() if some}


def marked(state: State, x: Sequence[float], y: Sequence[float], texts: Sequence[str], **more: Any) -> go.Scatter:
    """Returns the marks of trials in the same state."""
    words, color, mark = ENDS[state]
    size, opacity = (7, 0.85) if len(x) <= CROWD else (5, 0.6)
    marker = {"color": color, "symbol": mark, "size": size, "opacity": opacity}
    own: dict[str, Any] = {"x": list(x), "y": list(y), "hovertext": list(texts), "name": words, "legendgroup": words}
    return go.Scatter(**own | {"mode": "markers", "marker": marker, "hoverinfo": "text", "cliponaxis": False} | more)


def thin(lines: int) -> str:
    """Returns the gray of background lines, fainter if there are many."""
    return f"rgba(140,140,140,{0.5 if lines <= CROWD else 0.25})"


def level(value: float, over: tuple[float, float], name: str, color: str, dash: str) -> go.Scatter:
    """Returns a horizontal line across a figure."""
    line = {"color": color, "dash": dash, "width": 1.5}
    told = f"{name}: {value:.4f}<extra></extra>"
    return go.Scatter(x=list(over), y=[short(value)] * 2, mode="lines", name=name, line=line, hovertemplate=told)
