"""Results: Pareto front of quality and cost, confirmation, and differences from the best baseline."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.statistics import half_interval
from ensdistill_tune.analysis.verdict import PairedComparison, best_baseline, compare, searched_among
from ensdistill_tune.records.trial_record import TrialRecord, of_kind
from ensdistill_tune.report.figures.axes import Scale, short
from ensdistill_tune.report.figures.history import TEACHERS
from ensdistill_tune.report.figures.style import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    RED,
    hover,
    new_figure,
)
from ensdistill_tune.search.pareto import pareto_front_indices, to_minimization
from ensdistill_tune.study.objectives import axis_title
from ensdistill_tune.study.study_config import StudyConfig

COST = "cost/flops"


def pareto(facts: StudyResults) -> go.Figure | None:
    """Draws the objective against the secondary objective or the inference cost; None if all costs are equal."""
    study, trials = facts.study, facts.order
    price = study.secondary_objectives[0] if study.secondary_objectives else COST
    if len({trial.last[price] for trial in trials}) < 2:
        return None
    x, y = ([trial.last[name] for trial in trials] for name in (price, study.objective))
    teachers = _teachers(facts) if price == COST else {}
    prices, values = ([point[k] for point in teachers.values()] for k in (0, 1))
    across = Scale.of(x, log=price.startswith("cost/"), always=prices)
    up = Scale.of(y, log=study.mode == "min", always=values)
    figure = new_figure(420, xaxis=across.axis(axis_title(price)), yaxis=up.axis(axis_title(study.objective)))
    for words, color, mark, own in (
        ("trials", BLUE, "circle", of_kind(trials, "search")),
        ("baselines", RED, "square", [t for t in trials if t.baseline]),
    ):
        if own:
            costs, results = [across.clip(t.last[price]) for t in own], [up.clip(t.last[study.objective]) for t in own]
            figure.add_trace(_points(costs, results, words, color, mark, [hover(t, study) for t in own]))
    if feasible := study.feasible(trials):
        figure.add_trace(_front_line(feasible, study, price))
    for n, (who, (cost, value)) in enumerate(teachers.items()):
        mark = ("star", "star-open")[n]
        figure.add_trace(_points([short(cost)], [short(value)], who, GREEN, mark, [f"{who}: {value:.4f}"], size=12))
    return figure


def _points(
    x: Sequence[float], y: Sequence[Any], name: str, color: str, mark: str, texts: Sequence[str], size: int = 8
) -> go.Scatter:
    marker = {"color": color, "symbol": mark, "size": size}
    return go.Scatter(x=x, y=y, mode="markers", name=name, marker=marker, hovertext=texts, hoverinfo="text")


def _front_line(trials: Sequence[TrialRecord], study: StudyConfig, price: str) -> go.Scatter:
    """Returns the Pareto front as a step line, which shows the best value that is reached at each cost."""
    names, modes = [price, study.objective], [study.mode_of(price), study.mode]
    best = pareto_front_indices([to_minimization([t.last[name] for name in names], modes) for t in trials])
    points = sorted((short(trials[n].last[price]), short(trials[n].last[study.objective])) for n in best)
    x, y = zip(*points, strict=True)
    line = {"color": BLUE, "width": 2, "shape": "hv" if modes[0] == "min" else "vh"}
    return go.Scatter(x=x, y=y, mode="lines", line=line, name="Pareto front", hoverinfo="skip")


def _teachers(facts: StudyResults) -> dict[str, tuple[float, float]]:
    """Returns the cost and the objective of the ensemble and of a single teacher; empty if no cost was recorded."""
    metric = facts.study.objective.removeprefix("val/")
    return {who: (row["flops"], row[metric]) for who, row in facts.teachers.items() if "flops" in row}


def confirmation(facts: StudyResults) -> go.Figure | None:
    """Draws each candidate's result for each seed, with the mean over seeds and its 95 % confidence interval."""
    order, metric = facts.confirmed[::-1], facts.study.objective
    if not order:
        return None
    labels = [candidate.label for candidate in order]
    figure = new_figure(170 + 36 * len(order))
    teachers = [(who, row[metric.removeprefix("val/")]) for who, row in facts.teachers.items()]
    values = [value for c in order for value in c.values(metric)]
    scale = Scale.of(values, log=False, always=[*values, *(value for _, value in teachers)])
    figure.update_xaxes(**scale.axis(axis_title(metric)))
    figure.update_yaxes(type="category", categoryarray=labels, range=[-0.6, len(order) - 0.4])
    seeds = [(c.label, replicate) for c in order for replicate in c.replicates]
    figure.add_scatter(
        x=[short(replicate.last[metric]) for _, replicate in seeds],
        y=[name for name, _ in seeds],
        mode="markers",
        name="one seed",
        marker={"symbol": "circle-open", "size": 8, "color": GRAY},
        hovertext=[f"{name}, seed {replicate.seed}: {replicate.last[metric]:.4f}" for name, replicate in seeds],
        hoverinfo="text",
    )
    for words, color, mark, own in (
        ("mean of trial", BLUE, "diamond", [c for c in order if not c.trial.baseline]),
        ("mean of baseline", RED, "square", [c for c in order if c.trial.baseline]),
    ):
        if own:
            figure.add_trace(_means(own, metric, words, color, mark))
    for (color, dash), (who, value) in zip(TEACHERS, teachers, strict=False):
        line = {"color": color, "dash": dash, "width": 1.5}
        ends: dict[str, Any] = {"x": [short(value)] * 2, "y": [labels[0], labels[-1]], "hoverinfo": "name+x"}
        figure.add_scatter(**ends, mode="lines", line=line, name=who)
    return figure


def _means(own: Sequence[Candidate], metric: str, words: str, color: str, mark: str) -> go.Scatter:
    halves = [half_interval(candidate.values(metric)) for candidate in own]
    means = [candidate.mean(metric) for candidate in own]
    texts = [
        f"{c.label}: {mean:.4f} ± {half:.4f} ({len(c.replicates)} seeds)"
        for c, mean, half in zip(own, means, halves, strict=True)
    ]
    made = _points([short(m) for m in means], [c.label for c in own], words, color, mark, texts, size=10)
    return made.update(error_x={"type": "data", "array": [short(half) for half in halves], "thickness": 2})


def differences(facts: StudyResults) -> go.Figure | None:
    """Draws each candidate's differences from the best baseline: one per seed, and the mean with its interval."""
    metric, baseline = facts.study.objective, best_baseline(facts.confirmed)
    others = [c for c in facts.confirmed[::-1] if c is not baseline]
    if baseline is None or not others:
        return None
    among = searched_among(facts.confirmed)
    found = {c.label: compare(c, baseline, facts.study, among) for c in others}
    decidable = {name: c for name, c in found.items() if math.isfinite(sum(c.interval))}
    pairs = [(name, d) for name, c in found.items() for d in c.differences]
    title = f"difference in {metric.removeprefix('val/')} from {baseline.trial.baseline}"
    figure = new_figure(170 + 34 * len(others))
    ends = [end for c in decidable.values() for end in c.interval]
    scale = Scale.of([], log=False, always=[0.0, *ends, *(d for _, d in pairs)])
    figure.update_xaxes(**scale.axis(title), tickformat="+.2~g")
    figure.update_yaxes(type="category", categoryarray=list(found), range=[-0.6, len(others) - 0.4])
    figure.add_vline(x=0, line={"color": GRAY, "width": 1.5, "dash": "dash"})
    if decidable:
        spans = [c.interval for c in decidable.values()]
        figure.add_trace(_spans(spans, list(decidable), "90 % interval, corrected", ORANGE, 7))
    texts = [f"{name}: {d:+.4f}" for name, d in pairs]
    marks = _points([short(d) for _, d in pairs], [name for name, _ in pairs], "one seed", GRAY, "circle-open", texts)
    figure.add_trace(marks)
    texts = [_hover_text(name, c) for name, c in found.items()]
    means = [short(c.difference) for c in found.values()]
    figure.add_trace(_points(means, list(found), "mean difference", BLUE, "diamond", texts, size=10))
    return figure


def _spans(ends: Sequence[tuple[float, float]], labels: Sequence[str], name: str, color: str, width: int) -> go.Scatter:
    x = [end for low, high in ends for end in (short(low), short(high), None)]
    y = [place for label in labels for place in (label, label, None)]
    line = {"color": color, "width": width}
    return go.Scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="skip")


def _hover_text(name: str, c: PairedComparison) -> str:
    return f"{name}: {c.difference:+.4f} ({c.interval_text}), better in {c.wins} of {len(c.differences)} seeds"
