"""Recommendations: each rule returns one sentence if its condition is met, and None otherwise."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev

from ensdistill.errors import ConfigError
from ensdistill.evaluation.plausibility import is_at_chance
from ensdistill.runtime.formatting import percent
from ensdistill_tune.analysis.effect_test import ENOUGH
from ensdistill_tune.analysis.importance import Importance
from ensdistill_tune.analysis.rank_correlation import FEWEST, epochs_to_ask
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.sequential_test import MOST_PAIRS
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.report.findings import is_worse_than_one_teacher
from ensdistill_tune.report.summary import compare_best, searched_and_baseline, winner_rows
from ensdistill_tune.search.constraints import violations
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.study.study_config import StudyConfig

EDGE = 0.1  # share of a range that counts as its edge
BEST = 5  # number of best trials whose values are compared with the edges of a range
LONGEST = 200  # maximum length of a reason in characters
NOTHING_LEARNT = (
    "find out why the students do not learn: train on the labels alone (`ensdistill distill labels`), with a lower "
    "`training.optimizer.lr` or more epochs, and check that images and labels match."
)
# Mean difference detected with 20 seeds in about half of the studies, in standard deviations of the paired differences.
DETECTABLE = 0.75


def advice(facts: StudyResults, found: Sequence[Importance]) -> list[str]:
    """Returns recommendations, most urgent first.

    If students are at chance level, only the recommendations about failed trials and about learning are returned.
    """
    rows, _ = winner_rows(facts)
    if is_at_chance(*rows):
        first = failures(facts)
        return [*([first] if first else []), NOTHING_LEARNT]
    if facts.why_none_wins:
        urgent = [failures(facts), minutes(facts), relax(facts)]
        return [sentence for sentence in urgent if sentence]
    urgent = [failures(facts), minutes(facts), behind(facts), crossing(facts)]
    rest = [certainty(facts), *ends(facts, found), more(facts), longer(facts), idle(facts, found)]
    return [sentence for sentence in (*urgent, *rest) if sentence]


def failures(facts: StudyResults) -> str | None:
    """Recommends narrower ranges if many trials failed, and quotes the most frequent error."""
    failed = [trial for trial in facts.trials if trial.state == "failed"]
    if len(failed) * 10 < len(facts.trials) or not failed:
        return None
    kind, times = Counter(trial.error_kind for trial in failed).most_common(1)[0]
    example = next(trial.error for trial in failed if trial.error_kind == kind)
    reason = " ".join((example or "").split()).replace("`", "'")[:LONGEST]
    many = f"{len(failed)} of {len(facts.trials)} trials failed"
    return f"{many}, {times} of them with this error: `{reason}`. Narrow the ranges of the settings that cause it."


def minutes(facts: StudyResults) -> str | None:
    """Recommends a larger time budget if the current one has run out."""
    if facts.summary["state"] != "timed_out":
        return None
    command = facts.command("resume", ("--set", f"budget.minutes={2 * (facts.study.budget.minutes or 0):g}"))
    return f"the time budget ran out before all trials had run; `{command}` continues the study."


def relax(facts: StudyResults) -> str:
    """Recommends other constraints or settings, for a study in which no trial meets all constraints."""
    nearest = facts.confirmed[0].means(facts.study.constraints) if facts.confirmed else facts.order[0].last
    broken = [bound for bound, violation in violations(facts.study.constraints, nearest).items() if violation > 0]
    bound = broken[0].replace(" at ", ".at_")
    command = facts.command("resume", ("--set", f"constraints.{bound}=VALUE"))
    return f"relax a constraint (`{command}`), or search over settings that meet it."


def behind(facts: StudyResults) -> str | None:
    """Recommends more training or a larger network if the winner is worse than a single teacher."""
    if not is_worse_than_one_teacher(facts):
        return None
    return (
        "a single teacher is better than the best student: train students longer than teachers (`training.epochs`), "
        "use a larger network (`model`), or add unlabeled images (`training.unlabeled_batch_size`)."
    )


def crossing(facts: StudyResults) -> str | None:
    """Recommends other early-stopping settings if the current ones favor worse trials over the best baseline."""
    rungs, best = epochs_to_ask(facts.study), next((trial for trial in facts.order if trial.baseline), None)
    survivors = facts.search_order
    if not rungs or best is None or not any(trial.state == "pruned" for trial in facts.trials):
        return None
    ahead = [trial for trial in survivors if _better(facts, trial, best, rungs[0])]
    overtaken = sum(not _better(facts, trial, best, facts.study.epochs) for trial in ahead)
    if len(survivors) < FEWEST or 2 * overtaken <= len(survivors):
        return None
    return (
        f"early stopping is biased here. After {rungs[0]} epochs, {len(ahead)} of the {len(survivors)} completed "
        f"trials were better than the published `{best.baseline}`, which is never stopped; after the last epoch, "
        f"{overtaken} of these {len(ahead)} were no longer better. "
        "Compare trials within groups (`scheduler.group_by`), start later (`scheduler.grace_epochs`), or disable early "
        "stopping (`scheduler.kind=none`)."
    )


def _better(facts: StudyResults, one: TrialRecord, other: TrialRecord, epoch: int) -> bool:
    values = [trial.best_until(epoch, facts.study.objective, facts.study.mode) for trial in (one, other)]
    if None in values:
        return False
    return values[0] < values[1] if facts.study.mode == "min" else values[0] > values[1]  # type: ignore[operator]


def certainty(facts: StudyResults) -> str | None:
    """Recommends the next step if the best trial is not significantly better than the best baseline."""
    searched, baseline = searched_and_baseline(facts)
    if not searched or baseline is None:
        if facts.summary["state"] == "finished" and not facts.confirmed:
            command = facts.command("resume", ("--set", "confirmation.top_k=3"))
            return f"re-evaluate the best trials with fresh seeds: `{command}`."
        return None
    c = compare_best(facts, searched, baseline)
    if c.outcome == "better":
        return None
    if facts.confirmed[0] is baseline or not c.improves:
        return (
            f"use the published settings of `{baseline.trial.baseline}`, or try other settings, a larger model, or "
            "more training images."
        )
    if len(c.differences) == MOST_PAIRS or abs(c.difference) < DETECTABLE * stdev(c.differences):
        return (
            f"use `{baseline.trial.baseline}` as published: the difference is too small relative to its variation "
            f"over seeds. With {MOST_PAIRS} seeds, a mean difference below {DETECTABLE} standard deviations of the "
            "paired differences is usually not significant."
        )
    seeds = min(MOST_PAIRS, 2 * facts.study.confirmation.seeds)
    command = facts.command("resume", ("--set", f"confirmation.seeds={seeds}"))
    return (
        f"confirm with more seeds: `{command}`. The remaining candidates continue with up to {MOST_PAIRS} seeds each, "
        "which may lead to a decision. The test set is not evaluated again."
    )


def ends(facts: StudyResults, found: Sequence[Importance]) -> list[str]:
    """Recommends wider ranges where the best trials lie close to one end and values beyond this end are valid."""
    best = facts.search_order[:BEST]
    idle = {i.name for i in found if not i.matters}
    if len(best) < BEST:
        return []
    said = (_end(facts.study, name, axis, best) for name, axis in facts.study.search.items() if name not in idle)
    return [sentence for sentence in said if sentence]


def _end(study: StudyConfig, name: str, axis: Hyperparameter, best: Sequence[TrialRecord]) -> str | None:
    values = {t.number: own[name] for t in best if name in (own := t.settings_at_last)}
    if axis.is_categorical or len(values) * 2 <= len(best):
        return None
    for side, end, near, way in (("lower", axis.values[0], 0.0, -1), ("upper", axis.values[1], 1.0, 1)):
        crowd = [t for t in best if t.number in values and abs(_place(axis, values[t.number]) - near) <= EDGE]
        if len(crowd) * 2 > len(best) and _is_valid_beyond(study, name, end, way, crowd[0]):
            crowded = f"search beyond the {side} end of `{name}` ({end:g})"
            return f"{crowded}: {len(crowd)} of the {len(best)} best trials lie close to it."
    return None


def _is_valid_beyond(study: StudyConfig, name: str, end: float, way: int, trial: TrialRecord) -> bool:
    """Returns whether a value beyond this end of the range is valid for this trial.

    `way` is -1 for the lower end and 1 for the upper end.
    """
    beyond = end + way if isinstance(end, int) else math.nextafter(end, way * math.inf)
    try:
        study.trial_config({**trial.sampled, name: beyond})
    except ConfigError:
        return False
    return True


def _place(axis: Hyperparameter, value: float) -> float:
    """Returns the position of a value in its range, from 0 to 1."""
    low, high = axis.values
    if axis.kind == "log_uniform":
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.5


def more(facts: StudyResults) -> str | None:
    """Recommends more trials if the last third of the trials clearly improved the best value."""
    searched, metric = facts.search_trials, facts.study.objective
    late = {trial.number for trial in searched[-max(1, len(searched) // 3) :]}
    order = facts.search_order
    before = next((trial for trial in order if trial.number not in late), None)
    if not order or before is None or order[0].number not in late or len(searched) < 9:
        return None
    if facts.study.searcher.kind == "grid":
        return None  # a grid has no further trials
    gain = abs(before.last[metric] - order[0].last[metric])
    if gain < _spread(facts):
        return None
    total = 2 * facts.study.budget.trials
    return (
        f"continue the search: its last third still improved the best value by {gain:.4f}. Run "
        f"`{facts.command('resume', ('--set', f'budget.trials={total}'))}`."
    )


def _spread(facts: StudyResults) -> float:
    """Returns the standard deviation of the objective over seeds, averaged over the candidates.

    Without replicates, returns the standard deviation over the best trials instead.
    """
    metric = facts.study.objective
    if facts.confirmed:
        return fmean([stdev(c.values(metric)) for c in facts.confirmed])
    best = [trial.last[metric] for trial in facts.order if trial.kind == "search"][:BEST]
    return stdev(best) if len(best) > 1 else 0.0


def longer(facts: StudyResults) -> str | None:
    """Recommends longer training if the winner still improved in the last epochs, on average over seeds."""
    runs = facts.confirmed[0].replicates if facts.confirmed else facts.order[:1]
    shortest = min((len(run.epochs) for run in runs), default=0)
    if shortest < 10:
        return None
    tenth, metric = shortest // 10, facts.study.objective
    now = fmean(epoch[metric] for run in runs for epoch in run.epochs[-tenth:])
    then = fmean(epoch[metric] for run in runs for epoch in run.epochs[-2 * tenth : -tenth])
    gain = (then - now if facts.study.mode == "min" else now - then) / abs(then) if then else 0.0
    if gain < 0.01:
        return None
    return (
        f"train longer (`training.epochs`): the winner still improved by {percent(gain, 1)} in the last tenth of its "
        "epochs."
    )


def idle(facts: StudyResults, found: Sequence[Importance]) -> str | None:
    """Recommends fixed values for settings without a significant effect, if there are enough trials to detect one."""
    if len(facts.search_trials) < ENOUGH:
        return None
    names = [f"`{i.name}`" for i in found if not i.matters]
    if not names or len(names) == len(found):
        return None
    return f"keep {', '.join(names)} constant (no significant effect), and search only the other settings."
