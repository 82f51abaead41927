"""The sentences of the report are derived from the numbers."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from ensdistill.errors import ConfigIssue, DivergedError
from ensdistill.evaluation.plausibility import student_warnings
from ensdistill.runtime.formatting import mean_and_spread
from ensdistill_tune.analysis.importance import Importance
from ensdistill_tune.analysis.rank_correlation import RungCorrelation
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.trial_warnings import NO_DISTILLATION
from ensdistill_tune.analysis.trial_warnings import WORSE as WORSE_THAN_ONE
from ensdistill_tune.records.result_rows import TestMetrics
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.report import findings
from ensdistill_tune.report import recommendations as advice
from ensdistill_tune.report import summary as words
from ensdistill_tune.report.document import first_lines, sections
from ensdistill_tune.report.figures import figures
from tests.unit.report.synthetic import EPOCHS, PARAMETERS, SEARCH, facts, metrics, reports, study

KNOWN = facts(30)
MATTERS = Importance("perturbation.step_size", 0.5, 0.4, 0.6, 0.001)
IDLE = Importance("student.subnetworks", 0.02, 0.0, 0.05, 0.7)


def candidate(number: int, values: Sequence[float], baseline: str | None = None) -> Candidate:
    """Returns a trial with one replicate per seed, with these final NLL values."""
    trial = TrialRecord(number, baseline, {"loss.temperature": 2.0}, "x", "finished", reports([values[0]]))
    replicates = [
        replace(trial, number=number * 100 + seed, replicate_of=number, seed=seed, epochs=reports([1.0, value]))
        for seed, value in enumerate(values, 1)
    ]
    return Candidate(trial, replicates)


def confirmed(*candidates: Candidate, tested: Sequence[TestMetrics] = (), **more: Any) -> StudyResults:
    return replace(KNOWN, confirmed=candidates, tested=tested, **more)


SURE = [0.100, 0.101, 0.099, 0.100, 0.102, 0.100]
WORSE = [0.120, 0.122, 0.119, 0.121, 0.121, 0.120]
LIKE = [0.101, 0.099, 0.102, 0.103, 0.098, 0.100]


def test_a_significant_improvement_is_stated_first_and_printed_in_bold() -> None:
    text = words.better_network(confirmed(candidate(5, SURE), candidate(1, WORSE, "kd"))) or ""
    assert text.startswith(
        "**Trial 005 is better than `kd` as published**: NLL -0.0202, -16.7 % (90 % confidence interval -0.02"
    )
    assert "6 of 6 seeds are better" in text
    assert text.endswith("statistically significant at 5 %, corrected for 1 candidate and sequential testing.")
    three = confirmed(candidate(5, SURE), candidate(6, LIKE[:3]), candidate(1, WORSE, "kd"))
    assert "corrected for 2 candidates and sequential testing." in first_lines(three, [], []).splitlines()[0]


def test_a_difference_that_is_not_significant_is_not_bold_and_its_interval_includes_zero() -> None:
    text = words.better_network(confirmed(candidate(5, SURE), candidate(1, LIKE, "kd"))) or ""
    low, high = map(float, re.search(r"90 % confidence interval (\S+) to (\S+)\)", text).groups())  # type: ignore
    assert low < 0 < high
    assert text.endswith("The difference is not statistically significant.")
    assert "**" not in text


def test_the_verdict_states_that_a_baseline_is_better() -> None:
    known = confirmed(candidate(1, SURE, "kd"), candidate(5, WORSE))
    assert words.better_network(known).startswith("**Trial 005 is worse than `kd` as published**: NLL +0.0202")
    unsure = confirmed(candidate(1, LIKE, "kd"), candidate(5, [v + 1e-4 * n for n, v in enumerate(SURE[::-1])]))
    assert words.better_network(unsure).startswith("No network is ")


def test_without_a_baseline_no_improvement_is_claimed() -> None:
    assert "no baseline was confirmed" in (words.better_network(confirmed(candidate(5, SURE))) or "")


def test_without_confirmation_the_report_states_that_values_are_from_a_single_seed() -> None:
    text = words.better_network(facts(30, seeds=0))
    assert "single-seed evaluations" in text
    assert "no trial was re-evaluated with fresh seeds" in text
    assert "selection bias" in text


def test_the_selection_bias_of_the_search_is_reported() -> None:
    best = next(trial for trial in KNOWN.order if trial.kind == "search")
    again = replace(candidate(best.number, [best.last["val/nll"] + 0.05 + 0.001 * n for n in range(5)]), trial=best)
    assert "optimistic (selection bias)" in (findings.selection_bias(confirmed(again)) or "")


def test_the_report_states_whether_the_confirmation_supports_the_search_score_of_the_best_trial() -> None:
    best = next(trial for trial in KNOWN.order if trial.kind == "search")
    again = replace(candidate(best.number, [best.last["val/nll"] + 0.001 * n for n in range(-2, 3)]), trial=best)
    assert "the search score held up" in (findings.selection_bias(confirmed(again)) or "")


def row(nll: float, dee: float, flops: float) -> dict[str, float]:
    own = {name.removeprefix("val/"): value for name, value in metrics(nll).items()}
    return own | {"dee": dee, "flops": flops, "parameters": PARAMETERS}


def on_test(dee: Sequence[float], share: float) -> list[TestMetrics]:
    students = [row(0.12, value, share * 100) for value in dee]
    return [
        TestMetrics(kind="candidate", trial=5, metrics=students),
        TestMetrics(kind="ensemble", metrics=[row(0.11, 4, 400)]),
        TestMetrics(kind="teacher_mean", metrics=[row(0.18, 1, 100)]),
    ]


def test_the_report_states_the_mean_deep_ensemble_equivalent_and_the_cost_of_the_student() -> None:
    known = confirmed(candidate(5, SURE), tested=on_test([3.0, 3.2, 3.1], 1.0))
    assert "as good as an ensemble of 3.1 +- 0.1 of the 4 teachers" in (words.worth(known) or "")
    assert "accuracy 0.9600 +- 0.0000 (ensemble 0.9633, single teacher 0.9400)" in (words.worth(known) or "")
    expected = (
        "The student costs 100 FLOP per image (25 % of the ensemble, the cost of a single teacher); 24.1k parameters."
    )
    assert words.cost(known) == expected
    dear = confirmed(candidate(5, SURE), tested=on_test([3.0, 3.2, 3.1], 2.4))
    assert "240 FLOP per image (60 % of the ensemble, 2.4 times a single teacher)" in (words.cost(dear) or "")


def test_the_reported_cost_includes_a_measured_latency() -> None:
    best = candidate(5, SURE)
    timed = replace(best.trial, epochs=[{**best.trial.last, "cost/latency_ms": 0.8123}])
    known = confirmed(replace(best, trial=timed), tested=on_test([3.0, 3.2, 3.1], 1.0))
    assert (words.cost(known) or "").endswith("latency 0.812 ms per image.")
    assert "latency" not in (words.cost(confirmed(best)) or "")


def test_the_reported_cost_includes_the_latency_measured_with_resizing() -> None:
    best = candidate(5, SURE)
    costs = {"cost/latency_ms": 0.8123, "cost/photo_latency_ms": 1.5}
    timed = replace(best.trial, epochs=[{**best.trial.last, **costs}])
    known = confirmed(replace(best, trial=timed), tested=on_test([3.0, 3.2, 3.1], 1.0))
    text = words.cost(known) or ""
    assert text.endswith("latency 0.812 ms per image (1.5 ms including the resize of a 500x375 photo).")


def test_the_first_three_sentences_state_the_verdict_and_the_distance_to_the_ensemble_and_the_cost() -> None:
    known = confirmed(candidate(5, SURE), candidate(1, WORSE, "kd"), tested=on_test([3.0, 3.2], 1.0))
    lines = first_lines(known, [MATTERS, IDLE], []).splitlines()
    assert [line.split(" ", 1)[1] for line in lines[:3]] == words.answers(known)
    assert ["better than" in lines[0], "as good as" in lines[1], "costs" in lines[2]] == [True] * 3
    assert lines[3].startswith("- Next: ")
    assert first_lines(known, [MATTERS, IDLE], []).count("**") == 2  # only the significant verdict is bold


@pytest.mark.parametrize("which", [0, 1])
def test_the_sentence_on_the_distance_to_the_ensemble_mentions_an_unidentified_temperature(which: int) -> None:
    rows = on_test([3.0, 3.2, 3.1], 1.0)
    assert words.UNCERTAIN not in (words.worth(confirmed(candidate(5, SURE), tested=rows)) or "")
    rows[which] = rows[which].model_copy(
        update={"metrics": [{**row, "temperature_identified": 0.0} for row in rows[which].metrics]}
    )
    assert (words.worth(confirmed(candidate(5, SURE), tested=rows)) or "").endswith(words.UNCERTAIN)


def test_the_sentence_on_the_distance_to_the_ensemble_is_correct_at_both_ends_of_the_scale() -> None:
    known = confirmed(candidate(5, SURE), tested=on_test([4.0, 4.0], 1.0))
    assert "an ensemble of 4.0 +- 0.0 or more of the 4" in (words.worth(known) or "")
    bad = confirmed(candidate(5, SURE), tested=on_test([1.0, 1.0], 1.0))
    text = words.worth(bad) or ""
    assert "no better than a single teacher" in text
    assert "is 0.1080 +- 0.0000; the mean over the 4 teachers is 0.1620" in text
    student, _, mean = on_test([1.0, 1.0], 1.0)
    alone = [student, TestMetrics(kind="ensemble", metrics=[row(0.18, 1, 100)]), mean]
    assert words.worth(confirmed(candidate(5, SURE), tested=alone)) is None


def test_the_first_recommendation_concerns_students_that_are_worse_than_a_single_teacher() -> None:
    rows = on_test([1.0, 1.0], 1.0)
    assert advice.behind(confirmed(candidate(5, SURE), tested=rows)) is None
    poor = TestMetrics(kind="candidate", trial=5, metrics=[row(0.2, 1.0, 100), row(0.17, 1.0, 100)])
    worse = confirmed(candidate(5, SURE), tested=[poor, *rows[1:]])
    assert "a single teacher is better" in advice.advice(worse, [])[0]


def test_a_perfect_rank_correlation_of_only_four_trials_is_called_an_uncertain_predictor() -> None:
    sentences = [
        findings.stopping(KNOWN, [RungCorrelation(10, 1.0, 1.0, 1.0, by_chance, 4)]) or ""
        for by_chance in (0.083, 0.017)
    ]
    assert ["an uncertain predictor" in sentences[0], "a good predictor" in sentences[1]] == [True, True]


@pytest.mark.parametrize(("early", "final", "mentioned"), [(0.7, 0.01, True), (0.01, 0.01, False), (0.7, 0.5, False)])
def test_a_good_baseline_that_would_have_been_pruned_is_evidence_against_early_stopping(
    early: float, final: float, mentioned: bool
) -> None:
    late = [
        replace(t, epochs=reports([early] * (EPOCHS - 1) + [final])) if t.baseline == "kd" else t for t in KNOWN.trials
    ]
    text = advice.crossing(replace(KNOWN, trials=late)) or ""
    assert ("better than the published `kd`, which is never stopped; after the last" in text) == mentioned
    unstopped = [t for t in late if t.state != "pruned"]
    assert advice.crossing(replace(KNOWN, trials=unstopped)) is None


def test_metrics_of_the_ensemble_and_of_a_single_teacher_follow_in_parentheses() -> None:
    known = confirmed(candidate(5, SURE), tested=on_test([3.0, 3.2], 1.0))
    assert "NLL 0.1200 +- 0.0000 (0.1100; 0.1800)" in (findings.metrics_beside_teachers(known) or "")


def test_the_metrics_stated_for_the_exported_student_are_those_of_its_seed() -> None:
    rows = on_test([3.0, 3.2, 3.1, 3.0, 3.0], 1.0)
    rows[0].metrics[2] = row(0.15, 3, 100)  # the third seed is best on validation (0.099)
    take = next(part.text for part in sections(confirmed(candidate(5, SURE), tested=rows)) if "Export" in part.title)
    assert "student trained with seed 3" in take
    assert "accuracy 0.9500, NLL 0.1500" in take


def test_settings_with_a_significant_effect_are_listed_separately_from_all_others() -> None:
    text = findings.what_mattered(KNOWN, [MATTERS, IDLE]) or ""
    assert "`perturbation.step_size` (50 %, 40 % to 60 %)" in text
    assert "no significant effect in 30 trials: `student.subnetworks`" in text
    assert "No setting has a significant effect" in (findings.what_mattered(KNOWN, [IDLE]) or "")
    assert "is unknown" in (findings.what_mattered(facts(4), []) or "")


def test_the_report_lists_the_pareto_front_if_there_are_several_objectives() -> None:
    assert findings.on_the_front(KNOWN) is None
    several = facts(30, costs=True, seeds=0, secondary_objectives=["cost/flops"])
    text = findings.on_the_front(several) or ""
    cheapest = min(several.order, key=lambda t: (t.last["cost/flops"], t.last["val/nll"]))
    assert text.startswith("Pareto front of NLL and flops: ")
    assert f"{cheapest.number:03d}" in text


def test_the_report_first_states_that_a_study_is_unfinished() -> None:
    known = confirmed(summary={**KNOWN.summary, "state": "interrupted", "total": 32})
    assert first_lines(known, [], []).splitlines()[0].startswith("- **This study is incomplete (interrupted)**")


def test_the_summary_has_six_to_ten_lines() -> None:
    known = confirmed(candidate(5, SURE), candidate(1, WORSE, "kd"), tested=on_test([3.0, 3.2], 1.0))
    assert 6 <= len(first_lines(known, [MATTERS, IDLE], []).splitlines()) <= 10


# --- what to try next -------------------------------------------------------------------------------------------------


def apart_by(effect: float, n: int = 5) -> list[float]:
    """Returns differences whose mean is `effect` times their standard deviation."""
    shape = [k - (n - 1) / 2 for k in range(n)]
    return [effect + value / stdev(shape) for value in shape]


def test_more_seeds_are_recommended_for_a_difference_that_may_be_due_to_chance() -> None:
    other = [0.1 + value / 1000 for value in apart_by(1.0)]
    known = confirmed(
        candidate(5, [0.1] * 5), candidate(6, [0.2] * 5), candidate(7, [0.2] * 5), candidate(1, other, "kd")
    )
    text = advice.certainty(known) or ""
    assert "`ensdistill-tune resume synthetic --set confirmation.seeds=10`" in text
    hopeless = confirmed(candidate(5, SURE), candidate(1, LIKE, "kd"))
    assert "With 20 seeds, a mean difference below" in (advice.certainty(hopeless) or "")


def test_a_wider_range_is_recommended_if_the_best_values_are_close_to_its_end() -> None:
    best = [replace(t, sampled={**t.sampled, "loss.temperature": 9.8}) for t in KNOWN.order if t.kind == "search"]
    crowded = replace(KNOWN, trials=best)
    assert any("upper end of `loss.temperature` (10)" in sentence for sentence in advice.ends(crowded, []))
    spread = [replace(t, sampled={**t.sampled, "loss.temperature": 3.0 + n % 5}) for n, t in enumerate(KNOWN.order)]
    assert not any("temperature" in sentence for sentence in advice.ends(replace(KNOWN, trials=spread), []))


@pytest.mark.parametrize(
    ("name", "axis", "crowd", "advised"),
    [
        ("averaging.start", {"uniform": [0.0, 0.8]}, 0.79, True),
        ("averaging.start", {"uniform": [0.0, 0.8]}, 0.01, False),  # a fraction of training is never negative
        ("student.subnetworks", {"integer": [1, 8]}, 8, True),
        ("student.subnetworks", {"integer": [1, 8]}, 1, False),
        ("loss.temperature", {"log_uniform": [1, 100]}, 99.0, False),
    ],
)
def test_values_outside_the_domain_of_a_setting_are_not_recommended(
    name: str, axis: Any, crowd: float, advised: bool
) -> None:
    own = study(search={**SEARCH, name: axis})
    best = [
        replace(t, sampled={**t.sampled, "averaging.kind": "ema", "averaging.decay": 0.9, name: crowd})
        for t in KNOWN.order
        if t.kind == "search"
    ]
    sentences = advice.ends(replace(KNOWN, study=own, trials=best), [])
    assert any(f"end of `{name}`" in sentence for sentence in sentences) == advised


def test_the_recommendation_for_a_setting_without_an_effect_is_a_constant_and_not_a_wider_range() -> None:
    best = [replace(t, sampled={**t.sampled, "student.subnetworks": 8}) for t in KNOWN.order if t.kind == "search"]
    assert not any("subnetworks" in sentence for sentence in advice.ends(replace(KNOWN, trials=best), [IDLE]))
    enough = facts(40)
    assert "keep `student.subnetworks` constant" in (advice.idle(enough, [MATTERS, IDLE]) or "")
    assert advice.idle(enough, [IDLE]) is None
    few = replace(KNOWN, trials=KNOWN.trials[:20])
    assert advice.idle(few, [MATTERS, IDLE]) is None
    assert "With fewer than 32 trials, an effect" in (findings.what_mattered(few, [IDLE]) or "")


@pytest.mark.parametrize(("values", "advised"), [([0.5 - 0.01 * n for n in range(30)], True), ([0.2] * 30, False)])
def test_longer_training_is_recommended_if_the_best_student_was_still_improving(
    values: list[float], advised: bool
) -> None:
    best = TrialRecord(1, None, {}, "x", "finished", reports(values))
    assert bool(advice.longer(replace(KNOWN, trials=[best], confirmed=()))) == advised
    lucky = replace(best, epochs=reports([1.0 - 0.03 * n for n in range(30)]))
    again = [Candidate(lucky, [best, best])]  # the single seed of the search has no effect if replicates exist
    assert bool(advice.longer(replace(KNOWN, trials=[lucky], confirmed=again))) == advised


def test_failures_are_reported_with_their_most_frequent_error() -> None:
    errors = [str(DivergedError(n + 1, 30 + n, math.inf if n % 2 else math.nan)) for n in range(10)]
    failed = [
        replace(t, state="failed", error=error, error_kind="DivergedError")
        for t, error in zip(KNOWN.trials[:10], errors, strict=True)
    ]
    failed[0] = replace(failed[0], error="out of memory\n![](//else.where/x.png)", error_kind="OutOfMemoryError")
    text = advice.failures(replace(KNOWN, trials=failed)) or ""
    assert text.startswith(f"10 of 10 trials failed, 9 of them with this error: `{errors[1]}`.")
    assert "`out of memory ![](//else.where/x.png)`" in (advice.failures(replace(KNOWN, trials=failed[:1])) or "")
    assert advice.failures(replace(KNOWN, trials=KNOWN.order)) is None


def test_continuing_a_search_that_was_still_improving_is_recommended() -> None:
    own = [t for t in KNOWN.order if t.kind == "search"]
    ordered = [replace(t, number=n, epochs=reports([1.0 - 0.02 * n])) for n, t in enumerate(own * 3, 3)]
    assert "--set budget.trials=" in (advice.more(replace(KNOWN, trials=ordered, confirmed=())) or "")
    backwards = [replace(t, number=100 - t.number) for t in ordered]
    assert advice.more(replace(KNOWN, trials=sorted(backwards, key=lambda t: t.number), confirmed=())) is None


def test_no_claim_is_made_about_search_trials_if_all_of_them_failed_in_the_confirmation() -> None:
    alone = [c for c in KNOWN.confirmed if c.trial.baseline]
    lost = next(c for c in KNOWN.confirmed if not c.trial.baseline)
    replicates = [replace(r, state="failed") if r.replicate_of == lost.trial.number else r for r in KNOWN.replicates]
    known = replace(KNOWN, confirmed=alone, replicates=replicates)
    text = words.better_network(known)
    assert text.startswith("No better network was confirmed: only baselines completed the confirmation.")
    assert [part for part in sections(known) if f"a replicate failed: `{lost.trial.name}`" in part.text]
    assert "differences" in {shown.key for shown in figures(known)}


def test_the_report_states_how_often_the_test_set_was_evaluated() -> None:
    again = replace(KNOWN, looks=2)
    assert " (evaluated once), " in (findings.metrics_beside_teachers(KNOWN) or "")
    assert " (evaluated 2 times), " in (findings.metrics_beside_teachers(again) or "")
    assert sections(again)[0].text.startswith("Test images, evaluated 2 times, after")
    refused = replace(KNOWN, tested=())
    assert "Other students were already evaluated" in sections(refused)[0].text


def test_the_best_baseline_is_listed_next_to_the_teachers_even_without_a_confirmation() -> None:
    known = facts(30, seeds=0)
    alone = replace(known, trials=[trial for trial in known.trials if trial.baseline])
    assert f"\n| baseline {alone.order[0].baseline} |" in sections(alone)[0].text


def test_commands_include_the_studies_folder_unless_it_is_the_default() -> None:
    away = replace(KNOWN, studies=Path("/data/my studies"), confirmed=())
    elsewhere = f"{first_lines(away, [], [])} {' '.join(part.text for part in sections(away))}"
    assert "`ensdistill-tune export synthetic --studies-dir '/data/my studies'`" in elsewhere
    assert "--set confirmation.top_k=3 --studies-dir '/data/my studies'`" in elsewhere
    assert (
        "ensdistill distill '/data/my studies/synthetic/best/config.yaml' --studies-dir '/data/my studies'" in elsewhere
    )
    assert "--studies-dir" not in first_lines(KNOWN, [], [])
    assert "ensdistill distill studies/synthetic/best/config.yaml\n" in sections(KNOWN)[-2].text


@pytest.mark.parametrize("objective", ["val/nll", "val/accuracy"])
def test_using_a_significantly_better_baseline_is_recommended(objective: str) -> None:
    known = confirmed(candidate(1, SURE, "kd"), candidate(5, WORSE), study=facts(30, objective=objective).study)
    assert "use the published settings of `kd`" in (advice.certainty(known) or "")


def test_range_recommendations_use_the_last_values_of_settings_that_change_during_training() -> None:
    low = {"after_epoch": 5, "set": {"perturbation.step_size": 0.0021}}
    moved = [replace(trial, schedule=[low]) if trial.kind == "search" else trial for trial in KNOWN.trials]
    assert "beyond the lower end of `perturbation.step_size`" in " ".join(advice.ends(replace(KNOWN, trials=moved), []))


def test_after_a_confirmation_the_pareto_front_is_computed_from_the_means() -> None:
    study = facts(30, secondary_objectives=["cost/flops"]).study
    good, worse = candidate(5, SURE), candidate(6, WORSE)  # at the same cost
    known = confirmed(good, worse, study=study)
    assert ": 1 of 2 confirmed trials, by their means: 005 (`pareto/`)" in (findings.on_the_front(known) or "")


# --- exceptional results ---------------------------------------------------------------------------------------------


def at_chance(known: StudyResults, chance: float = 1.0) -> StudyResults:
    """Returns the same study with all students at chance."""

    def guessing(trial: TrialRecord) -> TrialRecord:
        return replace(trial, epochs=[{**report, "val/at_chance": chance} for report in trial.epochs])

    confirmed = [
        Candidate(guessing(candidate.trial), [guessing(replicate) for replicate in candidate.replicates])
        for candidate in known.confirmed
    ]
    return replace(known, trials=[guessing(trial) for trial in known.trials], confirmed=confirmed, tested={})


@pytest.mark.parametrize("seeds", [0, 5])
def test_a_report_first_states_that_the_student_is_at_chance_and_omits_meaningless_comparisons(seeds: int) -> None:
    known = at_chance(facts(30, seeds=seeds))
    lines = first_lines(known, [], []).splitlines()
    assert lines[0].startswith("- **At chance**: the best student classifies ")
    text = " ".join([*lines, *(part.text.split("```")[0] for part in sections(known))])
    assert "worth" not in text
    assert "calibrated NLL" not in text.replace("calibrated NLL decides", "")
    best = known.confirmed[0].replicates if known.confirmed else known.order[:1]
    for name in ("val/cnll", "val/dee"):
        values = [trial.last[name] for trial in best]
        assert f"| {mean_and_spread(values)} |" not in text
    recommendations = advice.advice(known, [])
    assert "find out why the students do not learn" in recommendations[-1]
    assert "train longer" not in " ".join(recommendations)


def test_a_report_on_students_above_chance_level_does_not_mention_chance() -> None:
    known = at_chance(facts(30), 0.0)
    assert "At chance" not in first_lines(known, [], [])
    assert "calibrated NLL" in first_lines(known, [], [])


def test_a_warning_about_chance_level_does_not_repeat_the_first_sentence() -> None:
    (issue,) = student_warnings({"accuracy": 0.1, "at_chance": 1.0}, {}, 10)
    known = at_chance(facts(30))
    known = replace(known, summary={**known.summary, "warnings": [issue.as_row()]})
    assert "the student is right on" not in first_lines(known, [], [])


def test_a_report_first_states_that_training_on_labels_only_has_won() -> None:
    known = confirmed(candidate(1, SURE, "labels"), candidate(2, WORSE, "kd"), candidate(5, WORSE))
    assert first_lines(known, [], []).startswith("- **No distillation method won**")
    for others in ([candidate(1, SURE, "kd"), candidate(2, WORSE, "labels")], [candidate(1, SURE, "labels")]):
        assert "No distillation method won" not in first_lines(confirmed(*others), [], [])


def test_a_warning_that_is_already_stated_in_the_first_sentences_is_not_repeated() -> None:
    rows = [ConfigIssue((), f"{rule}: so").as_row() for rule in (NO_DISTILLATION, WORSE_THAN_ONE)]
    won = confirmed(
        candidate(1, SURE, "labels"), candidate(2, WORSE, "kd"), summary={**KNOWN.summary, "warnings": rows}
    )
    lines = findings.warnings(won)
    assert [WORSE_THAN_ONE in line for line in lines] == [True]


def test_the_report_first_states_that_students_are_worse_than_a_single_teacher() -> None:
    rows = on_test([1.0, 1.0], 1.0)
    bad = TestMetrics(kind="candidate", trial=5, metrics=[row(0.2, 1.0, 100), row(0.19, 1.0, 100)])
    text = first_lines(confirmed(candidate(5, SURE), tested=[bad, *rows[1:]]), [], [])
    assert text.startswith("- **Worse than one teacher**: the best student has a calibrated NLL of 0.17")
    assert "Worse than one teacher" not in first_lines(confirmed(candidate(5, SURE), tested=rows), [], [])


def test_without_a_feasible_trial_the_report_names_the_closest_trial_and_no_winner() -> None:
    for seeds in (0, 3):
        known = facts(30, seeds=seeds, constraints={"val/ece": {"at_most": 0.001}})
        lead = first_lines(known, [], [])
        nearest = known.confirmed[0].label if seeds else f"{known.order[0].number:03d}"
        assert "- No winner: none of " in lead
        assert f"the closest is {nearest} (val/ece " in lead
        assert "--set constraints.val/ece.at_most=VALUE" in lead
        for claim in ("Winner: ", "Files: ", "as published", "worth"):
            assert claim not in lead
        assert words.shipped(known) == (None, None)
        assert "Export and reproduce" not in [section.title for section in sections(known)]
        assert figures(known)


def test_constraints_that_all_trials_meet_do_not_change_the_report() -> None:
    assert first_lines(facts(30, constraints={"val/ece": {"at_most": 9}}), [], []) == first_lines(facts(30), [], [])


def test_a_constraint_violated_by_the_baseline_is_stated_next_to_the_comparison() -> None:
    # ECE is 0.2 times the NLL; for the baselines it is 0.14 and 0.16.
    known = facts(30, constraints={"val/ece": {"at_most": 0.026}})
    assert known.why_none_wins is None
    assert "` breaks a constraint: val/ece 0.02" in str(words.better_network(known))
    tables = {section.title: section.text for section in sections(known)}
    assert tables["Confirmation"].splitlines()[2].endswith("constraints that the mean violates | dropped |")
    assert "baseline latentbe !" in tables["Leaderboard"]


@pytest.mark.parametrize("objective", ["val/accuracy", "val/brier", "val/dee"])
def test_a_report_can_be_written_for_any_objective(objective: str) -> None:
    known = facts(20, objective=objective)
    best = max if objective != "val/brier" else min
    assert known.order[0].last[objective] == best(trial.last[objective] for trial in known.order)
    assert first_lines(known, [], [])
    assert figures(known)
