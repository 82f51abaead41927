"""The findings of a report, one sentence each: warnings first, then the winner, the settings and early stopping."""

from collections.abc import Sequence
from statistics import fmean, stdev

from ensdistill.evaluation.plausibility import AT_CHANCE, is_at_chance, is_shown
from ensdistill.evaluation.tables import as_text
from ensdistill.runtime.formatting import mean_and_spread, percent
from ensdistill_tune.analysis.effect_test import ENOUGH
from ensdistill_tune.analysis.importance import Importance, why_unknown
from ensdistill_tune.analysis.leaderboard import pareto_front
from ensdistill_tune.analysis.rank_correlation import RungCorrelation
from ensdistill_tune.analysis.replication import candidates_on_the_front
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.trial_warnings import NO_DISTILLATION, WORSE, is_worse
from ensdistill_tune.analysis.trial_warnings import won_without_teachers as labels_are_first
from ensdistill_tune.metric_names import SELECTED_EPOCH
from ensdistill_tune.records.trial_record import UNDER_WAY, TrialRecord
from ensdistill_tune.report.summary import shipped, winner_rows
from ensdistill_tune.study.objectives import spoken

MOST = 8  # maximum number of trials that are named
WARNINGS = 5  # maximum number of warnings in the summary; the others are listed in a separate section
FEW_TRIALS = (
    f"With fewer than {ENOUGH} trials, an effect that explains half of the variance can be missed in more than 20 % of "
    "studies."
)
CAUSES = {"timed_out": "its time budget ran out", "crashed": "its process died"}


# --- limits of the whole report ---


def incomplete(facts: StudyResults) -> str | None:
    """Returns a warning if the study has not completed."""
    state = str(facts.summary["state"])
    if state == "finished":
        return None
    done = sum(trial.state not in ("running", "interrupted") for trial in facts.trials)
    status = f"is still running ({state})" if state in UNDER_WAY else f"is incomplete ({CAUSES.get(state, state)})"
    return (
        f"**This study {status}**: {done} of {facts.summary['total']} trials have ended; the results are preliminary."
    )


def what_counts_most(facts: StudyResults) -> list[str]:
    """Returns warnings that concern the whole report.

    They state that the best student is at chance level, no better than one trained on the labels alone, or worse than
    one teacher.
    """
    rows, where = winner_rows(facts)
    if not rows:
        return []
    if is_at_chance(*rows):
        right = percent(fmean(row["accuracy"] for row in rows), 1)
        return [
            f"**At chance**: the best student classifies {right} of {where} correctly, no better than random guessing. "
            "No comparison below is meaningful."
        ]
    lines = []
    if won_without_teachers(facts):
        lines.append(
            "**No distillation method won**: training on the labels alone (`labels`) is at least as good as every "
            "distilled student."
        )
    if is_worse_than_one_teacher(facts):
        one = facts.teachers_beside[1] if facts.teachers_beside else {}
        own = mean_and_spread([row["cnll"] for row in rows])
        lines.append(
            f"**Worse than one teacher**: the best student has a calibrated NLL of {own} on {where}; the mean over "
            f"the teachers is {one['cnll']:.4f}."
        )
    return lines


def won_without_teachers(facts: StudyResults) -> bool:
    """Returns whether training on the labels alone ranks first although other methods were compared."""
    return labels_are_first(facts.study, [candidate.trial for candidate in facts.confirmed] or facts.order)


def is_worse_than_one_teacher(facts: StudyResults) -> bool:
    """Returns whether the winner has a higher calibrated NLL than a single teacher, on the images of `winner_rows`."""
    rows, _ = winner_rows(facts)
    return facts.teachers_beside is not None and is_worse(rows, facts.teachers_beside[1])


def warnings(facts: StudyResults) -> list[str]:
    """Returns the first warnings of the study as Markdown lines, and a line with the number of further warnings."""
    rows, _ = winner_rows(facts)
    stated = {  # already covered by `what_counts_most`
        AT_CHANCE: is_at_chance(*rows),
        NO_DISTILLATION: won_without_teachers(facts),
        WORSE: is_worse_than_one_teacher(facts),
    }
    before = tuple(rule for rule, holds in stated.items() if holds)
    found = [warning for warning in facts.warnings if warning.path or not warning.rule.startswith(before)]
    lines = [f"**Warning**: {as_text(str(warning))}" for warning in found[:WARNINGS]]
    more = len(found) - WARNINGS
    return [*lines, f"{more} more warnings are listed under *All warnings*."] if more > 0 else lines


# --- the winner ---


def winner(facts: StudyResults) -> str | None:
    """Returns a sentence with the settings of the winner and its mean objective; None without a confirmed winner."""
    if not facts.confirmed or facts.why_none_wins:
        return None
    first, metric = facts.confirmed[0], facts.study.objective
    name = f"baseline `{first.trial.baseline}`" if first.trial.baseline else f"trial {first.label}"
    value = f"{spoken(metric)} {mean_and_spread(first.values(metric))} on validation images"
    rank = f"the best of {len(facts.confirmed)} candidates, mean over {len(first.replicates)} fresh seeds"
    return f"Winner: {name} ({in_code(first.trial)}), {value}, {rank}."


def selected_epoch(facts: StudyResults) -> str | None:
    """Returns a sentence about the epoch of the exported weights; None without a winner."""
    _, trial = shipped(facts)
    if trial is None:
        return None
    number = trial.last.get(SELECTED_EPOCH)
    training = facts.study.config_for(trial).training
    return f"Exported weights: {training.selected_epoch(None if number is None else int(number))}."


def on_the_front(facts: StudyResults) -> str | None:
    """Returns a sentence about the Pareto front, whose students are in `pareto/`; None with a single objective."""
    front = [candidate.trial for candidate in candidates_on_the_front(facts.confirmed, facts.study)]
    of = f"{len(facts.confirmed)} confirmed trials, by their means"
    if not facts.confirmed:
        front, of = pareto_front(facts.order, facts.study), f"{len(facts.order)} trials"
    if not front:
        return None
    names = " and ".join(spoken(name) for name in facts.study.objectives)
    numbers = ", ".join(f"{trial.number:03d}" for trial in front[:MOST]) + (" and others" if len(front) > MOST else "")
    return f"Pareto front of {names}: {len(front)} of {of}: {numbers} (`pareto/`)."


def selection_bias(facts: StudyResults) -> str | None:
    """Returns a sentence that compares the search result of the top trial with its results for fresh seeds."""
    metric = facts.study.objective
    favorite = next((t for t in facts.order if not t.baseline), None)
    again = next((c for c in facts.confirmed if favorite and c.trial.number == favorite.number), None)
    if favorite is None or again is None:
        return None
    values, own = again.values(metric), favorite.last[metric]
    sign = 1 if facts.study.mode == "min" else -1
    biased = sign * (fmean(values) - own) > stdev(values)
    finding = "the search score was optimistic (selection bias)" if biased else "the search score held up"
    return (
        f"Trial {again.label} ranked first in the search: {spoken(metric)} {own:.4f} with one seed, "
        f"{mean_and_spread(values)} with fresh seeds; {finding}."
    )


def metrics_beside_teachers(facts: StudyResults) -> str | None:
    """Returns a sentence with the metrics of the winner, the ensemble and a single teacher; None if unknown."""
    rows, where = winner_rows(facts)
    if not rows or not facts.teachers_beside:
        return None
    together, one = facts.teachers_beside
    parts = [
        f"{spoken(name)} {mean_and_spread([row[name] for row in rows])} ({together[name]:.4f}; {one[name]:.4f})"
        for name in ("nll", "cnll", "ece")
        if is_shown(name, *rows)
    ]
    once = f" ({facts.looked})" if facts.tested else ""
    return f"On {where}{once}, the student reaches {', '.join(parts)} (in parentheses: ensemble; single teacher)."


# --- the search ---


def what_mattered(facts: StudyResults, found: Sequence[Importance]) -> str | None:
    """Returns a sentence that lists the settings that affect the result significantly, and those that do not."""
    if not found:
        why = why_unknown(facts.trials, facts.study)
        return f"The importance of the settings is unknown: {why}." if why else None
    trials = len(facts.search_trials)
    some = [f"`{i.name}` ({percent(i.share)}, {percent(i.low)} to {percent(i.high)})" for i in found if i.matters]
    rest = [f"`{i.name}`" for i in found if not i.matters]
    few = f" {FEW_TRIALS}" if rest and trials < ENOUGH else ""
    if not some:
        return f"No setting has a significant effect in {trials} trials: {', '.join(rest)}.{few}"
    others = f"; no significant effect in {trials} trials: {', '.join(rest)}" if rest else ""
    return (
        f"Settings that mattered (share of the variance between trials, 90 % interval): {', '.join(some)}{others}.{few}"
    )


def stopping(facts: StudyResults, seen: Sequence[RungCorrelation]) -> str | None:
    """Returns a sentence on how well the first rung predicts the final ranking; None if no trial was stopped early."""
    stopped = sum(trial.state == "pruned" for trial in facts.trials)
    if not stopped or not seen:
        return None
    first = seen[0]
    sure = first.by_chance < 0.05  # with four trials, tau is 1 or -1 by chance in one of twelve cases
    trust = "a good" if sure and first.low > 0.3 else ("a poor" if first.high < 0.3 else "an uncertain")
    which = "1 trial was" if stopped == 1 else f"{stopped} trials were"
    return (
        f"{which} stopped early. The ranking after {first.epoch} epochs is {trust} predictor of the final ranking "
        f"(Kendall's tau {first.tau:.2f}, 95 % confidence interval {first.low:.2f} to {first.high:.2f}, "
        f"{first.trials} completed trials)."
    )


def in_code(trial: TrialRecord) -> str:
    """Returns a short description of the settings of a trial."""
    if trial.baseline:
        return "as published"
    return f"`{trial.settings}`" if trial.settings else "the fixed settings of the study"
