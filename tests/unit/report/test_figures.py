"""Figures contain the numbers of the records, which are read back from the traces."""

import json
import time
from collections import Counter
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.verdict import verdict
from ensdistill_tune.records.trial_record import State, TrialRecord
from ensdistill_tune.report.figures import FIGURES, ReportFigure, figures
from tests.unit.report.synthetic import EPOCHS, RUNGS, SEARCH, TEACHERS, facts, planted, reports

METRIC = "val/nll"
FIVE_DIGITS = 1e-4


@pytest.fixture(scope="module")
def study() -> StudyResults:
    return facts(60, costs=True, noise=0.003)


@pytest.fixture(scope="module")
def shown(study: StudyResults) -> dict[str, ReportFigure]:
    return {one.key: one for one in figures(study)}


def draw(key: str, of: StudyResults) -> Any:
    return FIGURES[key][1](of)


def traces(figure: Any) -> dict[str, Any]:
    """Returns the traces by name, the first of each name."""
    return {trace.name: trace for trace in reversed(figure.data)}


def in_state(of: StudyResults, state: State) -> list[TrialRecord]:
    return [trial for trial in of.search_trials if trial.state == state]


def test_all_figures_have_a_title_and_a_caption(shown: dict[str, ReportFigure]) -> None:
    assert set(shown) == set(FIGURES)
    assert len({one.title for one in shown.values()}) == len(FIGURES)
    for one in shown.values():
        assert one.caption.endswith(".")
        assert one.figure.layout.title.text is None


def test_the_history_figure_shows_every_trial_at_its_value_with_a_marker_for_its_state(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn = traces(shown["history"].figure)
    done = drawn["completed"]
    ends = {trial.number: trial.last[METRIC] for trial in in_state(study, "finished")}
    assert list(done.x) == list(ends)
    assert list(done.y) == pytest.approx(list(ends.values()), rel=FIVE_DIGITS)
    assert list(drawn["stopped early"].x) == [trial.number for trial in in_state(study, "pruned")]
    assert list(drawn["failed"].x) == [trial.number for trial in in_state(study, "failed")] == [20, 40, 60]
    assert list(drawn["baselines"].y) == pytest.approx([0.16, 0.14], rel=FIVE_DIGITS)
    marks = {drawn[name].marker.symbol for name in ("completed", "stopped early", "failed", "baselines")}
    assert len(marks) == 4


def test_the_history_figure_shows_the_best_value_so_far_and_the_levels_of_baselines_and_teachers(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn = traces(shown["history"].figure)
    best = next(t.last[METRIC] for t in study.order if t.kind == "search")
    line = drawn["best so far"].y
    assert list(line) == sorted(line, reverse=True)
    assert (line[-1], drawn["best so far"].x[-1]) == (pytest.approx(best, rel=FIVE_DIGITS), study.trials[-1].number)
    levels = {name: drawn[name].y[0] for name in ("baseline latentbe", "baseline kd", *TEACHERS)}
    assert levels == pytest.approx(dict(zip(levels, (0.14, 0.16, 0.11, 0.18), strict=True)))


def test_learning_curves_label_the_best_three_trials_and_mark_where_trials_were_stopped(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn = traces(shown["curves"].figure)
    best = [trial for trial in study.order if trial.kind == "search"][:3]
    for trial in best:
        curve = drawn[f"trial {trial.number:03d}"]
        assert list(curve.y) == pytest.approx([known[METRIC] for known in trial.epochs], rel=FIVE_DIGITS)
    assert len({drawn[f"trial {trial.number:03d}"].line.dash for trial in best}) == len(best)
    stopped = in_state(study, "pruned")
    assert Counter(drawn["stopped early"].x) == Counter(trial.last["epoch"] for trial in stopped)
    assert set(drawn["stopped early"].x) <= set(RUNGS)
    gaps = sum(y is None for y in drawn["other trials"].y)
    assert gaps == len(study.trials) - len(best) - 1  # the best baseline is also labeled


def test_the_importance_figure_shows_shares_with_their_intervals() -> None:
    study = facts(120)
    drawn, knobs = traces(draw("importance", study)), study.importance
    first, best = drawn["significant effect"], knobs[0]
    assert (first.x[-1], first.y[-1]) == (pytest.approx(best.share, rel=FIVE_DIGITS), "step_size")
    assert first.x[-1] + first.error_x.array[-1] == pytest.approx(best.high, rel=FIVE_DIGITS)
    assert first.x[-1] - first.error_x.arrayminus[-1] == pytest.approx(best.low, rel=1e-3)
    assert first.marker.pattern.shape != drawn["no significant effect"].marker.pattern.shape


def test_the_slices_show_the_most_important_settings_and_every_trial_that_uses_them(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    figure = shown["slices"].figure
    names = [figure.layout[f"xaxis{n}"].title.text for n in ("", 2, 3, 4)]
    assert names == [knob.name.removesuffix(".kind").split(".")[-1] for knob in study.importance[:4]]
    panel = f"x{n if (n := names.index('step_size') + 1) > 1 else ''}"
    own = {trace.name: trace for trace in figure.data if trace.xaxis == panel}
    values = [trial.sampled["perturbation.step_size"] for trial in in_state(study, "pruned")]
    assert list(own["stopped early"].x) == pytest.approx(values, rel=FIVE_DIGITS)
    assert figure.layout[f"xaxis{panel[1:]}"].type == "log"
    for trace in figure.data:  # a conditional setting only for trials that have it
        name = study.importance[int(trace.xaxis[1:] or 1) - 1].name
        state = {"completed": "finished", "stopped early": "pruned", "failed": "failed"}[trace.name]
        assert len(trace.x) == sum(name in trial.sampled for trial in in_state(study, state))


def test_values_of_a_choice_are_drawn_as_labeled_strips(study: StudyResults) -> None:
    trials = [
        replace(trial, sampled={"averaging.kind": trial.sampled["averaging.kind"]}) for trial in study.search_trials
    ]
    axis = {"averaging.kind": study.study.search["averaging.kind"]}
    own = replace(study, trials=trials, study=study.study.model_copy(update={"search": axis}))
    figure = draw("slices", own)
    assert list(figure.layout.xaxis.ticktext) == ["none", "ema"]
    places = traces(figure)["stopped early"].x
    kinds = [trial.sampled["averaging.kind"] for trial in in_state(own, "pruned")]
    assert [("none", "ema")[round(x)] for x in places] == kinds


def test_the_parallel_coordinates_have_a_line_for_every_finished_trial_and_readable_ticks() -> None:
    study = facts(60, scheduler={"kind": "none"})
    figure = draw("parallel", study)
    drawn = traces(figure)
    own = [trial for trial in study.order if trial.kind == "search"]
    assert sum(y is None for trace in figure.data for y in trace.y) == len(own)
    names = list(figure.layout.xaxis.ticktext)
    assert names[-1] == "nll"
    best, place = own[0], names.index("step_size")
    height = drawn["best 8"].y[place]
    assert 0.002 * 100**height == pytest.approx(best.sampled["perturbation.step_size"], rel=1e-3)
    words = {note.text for note in figure.layout.annotations}
    assert {"none", "ema", "unused", "0.002", "0.2"} <= words
    without = next(n for n, trial in enumerate(own) if trial.sampled["averaging.kind"] == "none")
    line = [y for trace in (drawn["best 8"], drawn["others"], drawn["worst 8"]) for y in trace.y]
    assert line[without * (len(names) + 1) + names.index("decay")] < 0


def test_the_front_figure_shows_nondominated_trials_and_the_ensemble_with_its_total_cost(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn = traces(shown["pareto"].figure)
    points = [(trial.last["cost/flops"], trial.last[METRIC]) for trial in study.order]
    best = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
    line = drawn["Pareto front"]
    assert list(line.y) == pytest.approx([y for _, y in sorted(best)], rel=FIVE_DIGITS)
    together, alone = (drawn[who] for who in TEACHERS)
    assert together.x[0] == pytest.approx(4 * alone.x[0], rel=FIVE_DIGITS)
    assert (together.y[0], alone.y[0]) == (0.11, 0.18)
    assert len(drawn["baselines"].x) == 2


def test_the_reliability_figure_shows_winner_and_best_baseline_and_ensemble_with_all_bin_sizes(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn = traces(shown["reliability"].figure)
    assert study.diagnostics
    told = study.diagnostics.networks[0].reliability
    assert [trace.name for trace in shown["reliability"].figure.data[1:]] == [
        f"{study.confirmed[0].label}, ECE 0.020",
        "baseline latentbe, ECE 0.040",
        "ensemble of 4 teachers, ECE 0.050",
    ]
    winner = drawn[f"{study.confirmed[0].label}, ECE 0.020"]
    assert list(winner.y) == pytest.approx([accuracy for _, accuracy, _ in told], rel=1e-3)
    assert list(winner.customdata) == [count for *_, count in told]


def test_the_disagreement_figure_shows_the_entropy_of_each_network_and_of_the_teachers(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn, told = traces(shown["disagreement"].figure), study.diagnostics
    assert told
    assert list(drawn["disagreement of the teachers"].y) == pytest.approx(told.teachers, rel=FIVE_DIGITS)
    winner = drawn[f"entropy of {study.confirmed[0].label}"]
    assert list(winner.y) == pytest.approx(told.networks[0].entropy, rel=FIVE_DIGITS)
    assert "entropy of baseline kd" not in drawn  # latentbe is the better baseline


def test_class_metrics_and_confusions_are_read_from_the_diagnostics_and_class_names_are_escaped(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn = traces(shown["classes"].figure)
    assert list(drawn[study.confirmed[0].label].x) == [0.9, 0.8]  # the worst class is at the top
    assert list(shown["classes"].figure.layout.yaxis.ticktext) == ["cat", "&lt;b&gt;dog&lt;/b&gt;"]
    matrices = [trace for trace in shown["confusion"].figure.data if trace.type == "heatmap"]
    assert [trace.name for trace in matrices] == [study.confirmed[0].label, TEACHERS[0]]
    assert list(matrices[0].z[1]) == [0.2, 0.8, 0.0]
    assert list(shown["confusion"].figure.layout.xaxis.ticktext)[-1] == "others"
    counts = shown["confusion"].figure.data[1]
    assert dict(zip(zip(counts.x, counts.y, strict=True), counts.text, strict=True))[(0, 1)] == "20"


def test_the_confirmation_figure_shows_every_seed_and_the_means_with_intervals(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn = traces(shown["confirmation"].figure)
    assert len(drawn["one seed"].x) == sum(len(c.replicates) for c in study.confirmed)
    for candidate in study.confirmed:
        trace = drawn["mean of baseline" if candidate.trial.baseline else "mean of trial"]
        n, values = list(trace.y).index(candidate.label), candidate.values(METRIC)
        low, high = stats.t.interval(0.95, len(values) - 1, fmean(values), stats.sem(values))
        assert trace.x[n] == pytest.approx(fmean(values), rel=FIVE_DIGITS)
        assert 2 * trace.error_x.array[n] == pytest.approx(high - low, rel=1e-3)


def test_differences_from_the_best_baseline_are_paired_and_shown_with_the_interval_of_the_verdict(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    drawn = traces(shown["differences"].figure)
    winner, baseline = study.confirmed[0], next(c for c in study.confirmed if c.trial.baseline)
    found = verdict(study.confirmed, study.study).comparison
    assert found is not None
    pairs = zip(winner.values(METRIC), baseline.values(METRIC), strict=True)
    assert drawn["mean difference"].y[-1] == winner.label
    assert drawn["mean difference"].x[-1] == pytest.approx(fmean(a - b for a, b in pairs), rel=1e-3)
    assert list(drawn["90 % interval, corrected"].x)[-3:-1] == pytest.approx(found.interval, rel=1e-3)
    of_winner = [x for x, y in zip(drawn["one seed"].x, drawn["one seed"].y, strict=True) if y == winner.label]
    assert of_winner == pytest.approx(found.differences, rel=1e-3)
    assert baseline.label not in drawn["mean difference"].y


def test_the_rung_figure_shows_the_rung_epochs_and_states_the_effect_of_early_stopping() -> None:
    whole = facts(120)
    one = next(shown for shown in figures(whole) if shown.key == "rungs")
    assert tuple(one.figure.data[0].x) == RUNGS
    assert "Early stopping keeps the better trials" in one.caption


def test_the_hover_text_contains_the_trial_number_and_the_settings(
    study: StudyResults, shown: dict[str, ReportFigure]
) -> None:
    trial = in_state(study, "pruned")[0]
    text = traces(shown["history"].figure)["stopped early"].hovertext[0]
    assert f"trial {trial.number:03d}" in text
    assert f"after epoch {trial.last['epoch']:.0f}" in text
    assert f"perturbation.step_size {trial.sampled['perturbation.step_size']:.3g}" in text


def test_no_text_has_a_fixed_color_and_backgrounds_are_transparent(shown: dict[str, ReportFigure]) -> None:
    for one in shown.values():
        layout = one.figure.layout
        assert (layout.paper_bgcolor, layout.plot_bgcolor) == ("rgba(0,0,0,0)",) * 2
        assert "font" not in layout.to_plotly_json()
        assert all(note.font.color is None for note in layout.annotations)
        assert not {"black", "white"} & set(one.figure.to_json().replace('"', " ").split())


# --- what is missing is omitted ---


def keys(of: StudyResults) -> set[str]:
    return {one.key for one in figures(of)}


def test_figures_whose_confirmation_or_diagnostics_or_cost_data_are_missing_are_omitted() -> None:
    bare = replace(facts(30, seeds=0), diagnostics=None, tested=())
    missing = {"confirmation", "differences", "reliability", "disagreement", "classes", "confusion", "pareto"}
    assert keys(bare) == set(FIGURES) - missing


def test_figures_of_a_study_whose_first_trials_have_just_started_can_be_drawn() -> None:
    begun = [TrialRecord(1, "kd", {}, ""), TrialRecord(2, None, {"loss.temperature": 2.0}, "")]
    young = StudyResults("young", facts(1).study, {}, begun)
    assert keys(young) == set()
    begun[1].epochs = reports([2.0, 1.5])
    assert keys(young) == {"history", "slices", "curves"}


def test_figures_can_be_drawn_without_completed_trials_and_without_baselines_and_without_teachers() -> None:
    whole = facts(30, baselines=[])
    failed = [replace(trial, state="failed", error="out of memory", epochs=[]) for trial in whole.search_trials]
    assert keys(replace(whole, trials=failed, confirmed=(), diagnostics=None)) == {"history", "slices"}
    assert {"history", "confirmation"} <= keys(replace(whole, summary={}))
    assert "differences" not in keys(whole)


def test_for_a_maximized_objective_the_worse_end_is_at_the_bottom() -> None:
    whole = facts(40, objective="val/accuracy")
    figure = draw("history", whole)
    low, high = figure.layout.yaxis.range
    assert figure.layout.yaxis.type is None
    assert traces(figure)["failed"].y[0] < low + 0.1 * (high - low)
    line = traces(figure)["best so far"].y
    assert list(line) == sorted(line)


def test_if_there_is_a_second_objective_it_replaces_the_cost_on_the_axis() -> None:
    whole = facts(40, secondary_objectives=["val/ece"], scheduler={"kind": "none"})
    figure = draw("pareto", whole)
    assert figure.layout.xaxis.title.text == "validation ECE"
    assert TEACHERS[0] not in traces(figure)


def test_figures_show_population_members_that_start_from_the_checkpoint_of_their_parent() -> None:
    search = {name: SEARCH[name] for name in ("perturbation.step_size", "loss.temperature", "averaging.kind")}
    whole = facts(20, search=search, scheduler={"kind": "pbt", "interval_epochs": 10})
    parent = next(trial for trial in whole.search_trials if trial.state == "finished")
    changes = [{"after_epoch": 10, "set": {"loss.temperature": 9.1}}]
    child = replace(parent, number=99, parent=parent.number, epochs=parent.epochs[10:], schedule=changes)
    more = replace(whole, trials=[*whole.trials, child])
    assert {"curves", "parallel"} <= keys(more)
    figure = draw("slices", more)
    assert 9.1 in [x for trace in figure.data for x in trace.x]


def test_a_thousand_trials_are_drawn_in_seconds_and_the_page_stays_small() -> None:
    began = time.process_time()
    large = facts(1000, scheduler={"kind": "none"}, costs=True)
    assert time.process_time() - began < 5
    shown = figures(large)
    assert time.process_time() - began < 25  # 7 s on an idle core
    sizes = {one.key: len(one.figure.to_json()) for one in shown}
    assert sum(sizes.values()) < 3e6, sizes
    curves = next(one.figure for one in shown if one.key == "curves")
    assert sum(len(trace.x) for trace in curves.data) < 20_000
    assert len(curves.data) < 10
    assert all(json.loads(one.figure.to_json())["data"] for one in shown)


def test_without_noise_synthetic_trials_have_the_values_of_the_planted_function() -> None:
    whole = facts(30, noise=0.0)
    for trial in in_state(whole, "finished"):
        assert trial.last[METRIC] == pytest.approx(planted(trial.sampled, np.random.default_rng(0), 0.0))
        assert len(trial.epochs) == EPOCHS
