"""History of the study: results by trial and by epoch, and the correlation between early and final rankings."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import plotly.graph_objects as go

from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.report.figures.axes import Scale, short
from ensdistill_tune.report.figures.style import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    RED,
    by_state,
    height,
    hover,
    label,
    level,
    marked,
    new_figure,
    spread,
    thin,
)
from ensdistill_tune.study.objectives import axis_title

POINTS = 15_000  # maximum number of points in all learning curves together; more points make the page slow
BASELINE_MARK = {"symbol": "square", "color": RED, "size": 8}
BASELINES = ((RED, "dashdot"), (ORANGE, "dash"))  # color, line
TEACHERS = ((GREEN, "dot"), (GRAY, "longdash"))  # the ensemble, a single teacher
NAMED = ((BLUE, "solid"), (ORANGE, "dash"), (GREEN, "dot"))  # learning curves of the best trials


def history(facts: StudyResults) -> go.Figure | None:
    """Draws the value of each trial in order of start time, and the best value so far."""
    study, trials = facts.study, [trial for trial in facts.trials if trial.epochs or trial.state == "failed"]
    if not trials:
        return None
    lines = levels(facts)
    scale = spread(facts, [value for _, value, *_ in lines])
    figure = new_figure(420, yaxis=scale.axis(axis_title(study.objective)), xaxis={"title": {"text": "trial"}})
    for baseline in (False, True):
        for state, some in by_state(t for t in trials if (t.kind != "search") is baseline).items():
            heights, texts = [height(t, facts, scale) for t in some], [hover(t, study) for t in some]
            more = {"marker": BASELINE_MARK, "name": "baselines", "legendgroup": None} if baseline else {}
            figure.add_trace(marked(state, [t.number for t in some], heights, texts, **more))
    best = list(_best_so_far(facts))
    if best:
        numbers, records = zip(*best, strict=True)
        line = {"color": BLUE, "width": 2, "shape": "hv"}
        figure.add_scatter(x=numbers, y=records, mode="lines", line=line, name="best so far", hoverinfo="skip")
    over = (trials[0].number, trials[-1].number)
    for name, value, color, dash in lines:
        figure.add_trace(level(value, over, name, color, dash))
    return figure


def levels(facts: StudyResults) -> list[tuple[str, float, str, str]]:
    """Returns the name, value, color and line style of the two best baselines, the ensemble and a single teacher."""
    metric = facts.study.objective
    known = [(f"baseline {t.baseline}", t.last[metric]) for t in facts.order if t.baseline][: len(BASELINES)]
    found = [(*one, *looks) for one, looks in zip(known, BASELINES, strict=False)]
    rows = [(who, row[metric.removeprefix("val/")]) for who, row in facts.teachers.items()]
    return found + [(*one, *looks) for one, looks in zip(rows, TEACHERS, strict=False)]


def _best_so_far(facts: StudyResults) -> Iterator[tuple[int, float]]:
    metric, better = facts.study.objective, max if facts.study.mode == "max" else min
    done = [trial for trial in facts.search_trials if trial.state == "finished"]
    values = accumulate((trial.last[metric] for trial in done), better)
    for trial, value in zip(done, values, strict=True):
        yield trial.number, short(value)
    if done:
        yield facts.trials[-1].number, short(value)


def learning_curves(facts: StudyResults) -> go.Figure | None:
    """Draws the objective by epoch: best trials and baseline in color; marks show where trials ended early."""
    study, trials = facts.study, [trial for trial in facts.trials if trial.epochs]
    if not trials:
        return None
    best = facts.search_order[: len(NAMED)]
    baselines = [trial for trial in facts.order if trial.baseline][:1]
    others = [trial for trial in trials if trial not in best + baselines]
    values = (known[study.objective] for trial in trials if trial.state != "failed" for known in trial.epochs)
    scale = Scale.of(values, log=study.mode == "min", always=[t.last[study.objective] for t in best + baselines])
    figure = new_figure(420, yaxis=scale.axis(axis_title(study.objective)), xaxis={"title": {"text": "epoch"}})
    figure.add_trace(_crowd(others, study.objective, POINTS // len(trials)))
    for state, some in by_state(others).items():
        if state != "finished":
            epochs, heights = [t.last["epoch"] for t in some], [height(t, facts, scale) for t in some]
            figure.add_trace(marked(state, epochs, heights, [hover(t, study) for t in some]))
    looks = [*NAMED[: len(best)], BASELINES[0]]
    for trial, (color, dash) in zip(best + baselines, looks, strict=False):
        figure.add_trace(_curve(trial, study.objective, color, dash))
    return figure


def _curve(trial: TrialRecord, metric: str, color: str, dash: str) -> go.Scatter:
    name = f"baseline {trial.baseline}" if trial.baseline else f"trial {label(trial)}"
    epochs, values = zip(*[(known["epoch"], short(known[metric])) for known in trial.epochs], strict=True)
    told = f"{name}, epoch %{{x}}: %{{y:.4f}}<extra></extra>"
    line = {"color": color, "dash": dash, "width": 2.5}
    return go.Scatter(x=epochs, y=values, mode="lines", name=name, line=line, hovertemplate=told)


def _crowd(trials: Sequence[TrialRecord], metric: str, most: int) -> go.Scatter:
    """Returns all curves as one trace with gaps between curves; each curve is reduced to about `most` points."""
    x: list[float | None] = []
    y: list[float | None] = []
    for trial in trials:
        step = max(1, len(trial.epochs) // max(2, most))
        kept = [*trial.epochs[:-1:step], trial.last]
        x += [*(known["epoch"] for known in kept), None]
        y += [*(short(known[metric]) for known in kept), None]
    line = {"color": thin(len(trials)), "width": 1}
    return go.Scatter(x=x, y=y, mode="lines", line=line, name="other trials", hoverinfo="skip")


def rungs_against_finals(facts: StudyResults) -> go.Figure | None:
    """Draws Kendall's tau between the values at each rung and the final values, with its interval."""
    found = facts.rank_correlations
    if not found:
        return None
    lowest = min(0.0, *(one.low for one in found))
    figure = new_figure(
        360, yaxis={"title": {"text": "Kendall's tau with the final ranking"}, "range": [lowest - 0.05, 1.05]}
    )
    figure.update_xaxes(title_text="epoch of the rung", range=[0, facts.study.epochs])
    figure.add_hline(y=0, line={"color": GRAY, "dash": "dot", "width": 1})
    ups, downs = [one.high - one.tau for one in found], [one.tau - one.low for one in found]
    figure.add_scatter(
        x=[one.epoch for one in found],
        y=[short(one.tau) for one in found],
        error_y={"type": "data", "symmetric": False, "array": ups, "arrayminus": downs, "thickness": 1.5},
        mode="lines+markers+text",
        text=[f" {one.tau:.2f}" for one in found],
        textposition="bottom right",
        line={"color": BLUE},
        marker={"size": 9},
        name="tau",
        showlegend=False,
        hovertext=[
            f"epoch {one.epoch}: tau {one.tau:.2f} ({one.low:.2f} to {one.high:.2f}), {one.trials} trials"
            for one in found
        ],
        hoverinfo="text",
    )
    return figure
