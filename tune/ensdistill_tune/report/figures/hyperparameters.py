"""Effects of the settings: their importance, the objective as a function of each setting, and good combinations."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from ensdistill_tune.analysis.importance import Importance
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.report.figures.axes import (
    Scale,
    in_digits,
    linear_ticks,
    log_ticks,
    place,
    setting_axis,
    setting_ticks,
    short,
)
from ensdistill_tune.report.figures.style import (
    BLUE,
    CROWD,
    GRAY,
    ORANGE,
    by_state,
    height,
    hover,
    lined,
    marked,
    new_figure,
    short_names,
    spread,
    thin,
)
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.study.objectives import axis_title

SLICES, LINES = 4, 6  # maximum number of settings in slices and in parallel coordinates, for readability
FEWEST = 4  # minimum number of finished trials for parallel coordinates
NAMED = 8  # the lines of this many best trials, and of this many worst trials, are highlighted
UNUSED = -0.12  # height at which a trial's line crosses the axis of a setting that this trial does not use


def importance(facts: StudyResults) -> go.Figure | None:
    """Draws a bar with an interval for each setting; bars of settings without a significant effect are hatched."""
    knobs = facts.importance[::-1]
    if not knobs:
        return None
    short_name = short_names([knob.name for knob in knobs])
    names = [short_name[knob.name] for knob in knobs]
    figure = new_figure(150 + 34 * len(knobs), bargap=0.35, barmode="overlay")
    figure.update_xaxes(title_text="share of the variance between trials", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(type="category", categoryarray=names)
    for matters, words in ((True, "significant effect"), (False, "no significant effect")):
        own = [knob for knob in knobs if knob.matters is matters]
        if own:
            figure.add_trace(_bars(own, [short_name[knob.name] for knob in own], words))
    return figure


def _bars(knobs: Sequence[Importance], names: Sequence[str], words: str) -> go.Bar:
    color, shape = (BLUE, "") if knobs[0].matters else (GRAY, "/")
    marker = {"color": color, "pattern": {"shape": shape, "fgcolor": GRAY}, "line": {"color": GRAY, "width": 1}}
    ups, downs = [max(0.0, k.high - k.share) for k in knobs], [max(0.0, k.share - k.low) for k in knobs]
    error = {"type": "data", "symmetric": False, "array": ups, "arrayminus": downs, "color": GRAY}
    told = [f"{k.name}: {k.share:.0%} ({k.low:.0%} to {k.high:.0%}), p {k.p:.2g}" for k in knobs]
    own: dict[str, Any] = {"x": [short(k.share) for k in knobs], "y": list(names), "error_x": error, "marker": marker}
    return go.Bar(**own, orientation="h", name=words, hovertext=told, hoverinfo="text")


def slices(facts: StudyResults) -> go.Figure | None:
    """Draws the objective against each of the most important settings: one panel per setting, one mark per trial."""
    trials = [trial for trial in facts.search_trials if trial.epochs or trial.state == "failed"]
    if not trials:
        return None
    chosen, scale, short_name = _most_important(facts, SLICES), spread(facts), short_names(list(facts.study.search))
    figure = new_figure(60 + 200 * len(chosen))
    figure.set_subplots(len(chosen), 1, vertical_spacing=0.36 / len(chosen))
    for row, name in enumerate(chosen, 1):
        for trace in _slice([t for t in trials if name in t.settings_at_last], name, facts, scale):
            figure.add_trace(trace.update(showlegend=row == 1), row=row, col=1)
        figure.update_xaxes(**setting_axis(facts.study.search[name], short_name[name]), row=row, col=1)
    return lined(figure).update_yaxes(**scale.axis(axis_title(facts.study.objective).removeprefix("validation ")))


def _slice(trials: Sequence[TrialRecord], name: str, facts: StudyResults, scale: Scale) -> Iterator[go.Scatter]:
    """Yields one trace of marks per trial state; marks of a categorical setting are shifted to avoid overlaps."""
    axis = facts.study.search[name]
    for state, some in by_state(trials).items():
        x = [_beside(axis, place(axis, t.settings_at_last[name]), t.number) for t in some]
        texts = [hover(t, facts.study) for t in some]
        yield marked(state, x, [height(t, facts, scale) for t in some], texts)


def _beside(axis: Hyperparameter, x: float, number: int) -> float:
    """Returns the position of a mark; on a categorical axis, the mark is shifted, depending on the trial number."""
    return short(x + 0.5 * ((number * 0.618034) % 1 - 0.5)) if axis.is_categorical else x


def parallel_coordinates(facts: StudyResults) -> go.Figure | None:
    """Draws one line per finished trial through its settings to its objective; important settings are on the right.

    Plotly's `Parcoords` trace is not used: its black axes are invisible on dark pages, and it requires WebGL.
    """
    trials = facts.search_order
    if len(trials) < FEWEST:
        return None
    dimensions = [_setting(facts, name, trials) for name in _most_important(facts, LINES)[::-1]]
    dimensions.append(_result(facts, trials))
    figure = new_figure(440, hovermode="closest", margin={"l": 34, "r": 14, "t": 14, "b": 8})
    names, last = [dimension.name for dimension in dimensions], len(dimensions) - 1
    figure.update_xaxes(tickvals=list(range(last + 1)), ticktext=names, range=[-0.45, last + 0.15], gridcolor=GRAY)
    figure.update_xaxes(autotickangles=[0, -35, -70], ticklabeloverflow="allow")
    figure.update_yaxes(visible=False, range=[-0.2 if any(d.unused for d in dimensions) else -0.05, 1.05])
    edge, rest = min(NAMED, len(trials) // 3), {"color": thin(len(trials)), "width": 1}
    for words, line, own in (
        ("others", rest, range(edge, len(trials) - edge)[:: math.ceil(len(trials) / CROWD)]),
        (f"worst {edge}", {"color": ORANGE, "width": 1.5, "dash": "dot"}, range(len(trials) - edge, len(trials))),
        (f"best {edge}", {"color": BLUE, "width": 2}, range(edge)),
    ):
        figure.add_trace(
            _lines(dimensions, [*own], [hover(trials[n], facts.study) for n in own]).update(name=words, line=line)
        )
    for x, dimension in enumerate(dimensions):
        for y, word in dimension.ticks:
            figure.add_annotation(x=x, y=y, text=word, xanchor="right", xshift=-3, showarrow=False, font={"size": 10})
    return figure


@dataclass(frozen=True)
class _Dimension:
    """A vertical axis: the height at which each trial's line crosses it, and the ticks with their labels."""

    name: str
    heights: list[float]  # 0 to 1
    ticks: list[tuple[float, str]]

    @property
    def unused(self) -> bool:
        return min(self.heights) < 0


def _setting(facts: StudyResults, name: str, trials: Sequence[TrialRecord]) -> _Dimension:
    """Returns the axis of a searched setting; lines of trials without this setting cross the axis below its range."""
    axis = facts.study.search[name]
    ticks, words = setting_ticks(axis, 4)
    scale = math.log10 if axis.kind == "log_uniform" else float
    low, high = (scale(value) for value in ((-0.5, len(ticks) - 0.5) if axis.is_categorical else axis.values))
    own = [t.settings_at_last.get(name) if name in t.settings_at_last else ... for t in trials]
    heights = [UNUSED if v is ... else short((scale(place(axis, v)) - low) / (high - low)) for v in own]
    marks = [((scale(tick) - low) / (high - low), word) for tick, word in zip(ticks, words, strict=True)]
    name = short_names(list(facts.study.search))[name]
    return _Dimension(name, heights, marks + ([(UNUSED, "unused")] if UNUSED in heights else []))


def _result(facts: StudyResults, trials: Sequence[TrialRecord]) -> _Dimension:
    metric = facts.study.objective
    axis = spread(facts)
    ticks = log_ticks(*axis.ends, 5) if axis.log else linear_ticks(*axis.ends)
    marks = [(axis.share(tick), in_digits(tick)) for tick in ticks]
    return _Dimension(metric.removeprefix("val/"), [short(axis.share(t.last[metric])) for t in trials], marks)


def _lines(dimensions: Sequence[_Dimension], own: Sequence[int], texts: Sequence[str]) -> go.Scatter:
    """Returns the lines of some trials as one trace with gaps; each trial's hover text is at the end of its line."""
    x = [place for _ in own for place in (*range(len(dimensions)), None)]
    y = [height for n in own for height in (*(dimension.heights[n] for dimension in dimensions), None)]
    told = [text for one in texts for text in (*[""] * (len(dimensions) - 1), one, "")]
    return go.Scatter(x=x, y=y, mode="lines", hovertext=told, hoverinfo="text")


def _most_important(facts: StudyResults, most: int) -> list[str]:
    """Returns at most `most` searched settings; the most important come first if the importance is known."""
    return ([knob.name for knob in facts.importance] or list(facts.study.search))[:most]
