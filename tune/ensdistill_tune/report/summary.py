"""What was learnt, in plain sentences: what won, how surely, how close it is to the ensemble, what mattered."""

from collections.abc import Sequence
from statistics import fmean, stdev

from ensdistill.evaluation.evaluator import Metrics
from ensdistill.evaluation.plausibility import AT_CHANCE, is_at_chance, is_identified, is_shown
from ensdistill.evaluation.tables import as_text
from ensdistill.runtime.formatting import mean_and_spread, percent
from ensdistill_tune.analysis.importance import Importance, why_unknown
from ensdistill_tune.analysis.leaderboard import pareto_front
from ensdistill_tune.analysis.rank_correlation import RungCorrelation
from ensdistill_tune.analysis.replication import Candidate, candidates_on_the_front
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.statistics import compare
from ensdistill_tune.analysis.trial_warnings import NO_DISTILLATION, WORSE, is_worse
from ensdistill_tune.analysis.trial_warnings import won_without_teachers as labels_are_first
from ensdistill_tune.records.trial_record import UNDER_WAY, TrialRecord
from ensdistill_tune.study.objectives import spoken

UNCERTAIN = "The figure is uncertain: the validation images do not determine every temperature behind it."
MOST = 8  # trials that are named
WARNINGS = 5  # that are stated first; the others have a section


def how_it_stands(facts: StudyResults) -> str | None:
    """A warning above all else if the study is not over."""
    state = str(facts.summary["state"])
    done = sum(trial.state not in ("running", "interrupted") for trial in facts.trials)
    if state == "finished":
        return None
    said = {"timed_out": "ran out of time", "crashed": "died in the middle"}.get(state, state)
    said = f"is still at work ({state})" if state in UNDER_WAY else f"is not over ({said})"
    return f"**This study {said}**: {done} of {facts.summary['total']} trials are done, and this is how it stands."


def what_counts_most(facts: StudyResults) -> list[str]:
    """What turns all that follows upside down: students at chance, worse than one teacher, or best without teachers."""
    rows, where = winner_rows(facts)
    if not rows:
        return []
    if is_at_chance(*rows):
        right = percent(fmean(row["accuracy"] for row in rows), 1)
        return [
            f"**At chance**: the best student is right on {right} of {where}, no more often than a guess. Nothing was "
            "learnt, so no comparison below has a meaning."
        ]
    said = []
    if won_without_teachers(facts):
        said.append(
            "**No distillation won**: training on the labels alone (`labels`) is at least as good here as every "
            "student that learnt from teachers."
        )
    if is_worse_than_one_teacher(facts):
        one = facts.teachers_beside[1] if facts.teachers_beside else {}
        own = mean_and_spread([row["cnll"] for row in rows])
        said.append(
            f"**Worse than one teacher**: the best student has a calibrated NLL of {own} on {where}, one teacher "
            f"{one['cnll']:.4f} in the mean."
        )
    return said


def won_without_teachers(facts: StudyResults) -> bool:
    """Whether the best setting is training on the labels alone, beside others that are not."""
    return labels_are_first(facts.study, [candidate.trial for candidate in facts.confirmed] or facts.order)


def is_worse_than_one_teacher(facts: StudyResults) -> bool:
    """Whether the calibrated NLL of the best setting, on the images of `winner_rows`, is above that of one teacher."""
    rows, _ = winner_rows(facts)
    return facts.teachers_beside is not None and is_worse(rows, facts.teachers_beside[1])


def warnings(facts: StudyResults) -> list[str]:
    """What seems wrong, a sentence each, and how many more there are; Markdown."""
    rows, _ = winner_rows(facts)
    stated = {  # by `what_counts_most`
        AT_CHANCE: is_at_chance(*rows),
        NO_DISTILLATION: won_without_teachers(facts),
        WORSE: is_worse_than_one_teacher(facts),
    }
    before = tuple(rule for rule, holds in stated.items() if holds)
    found = [warning for warning in facts.warnings if warning.path or not warning.rule.startswith(before)]
    lines = [f"**Warning.** {as_text(str(warning))}" for warning in found[:WARNINGS]]
    more = len(found) - WARNINGS
    return [*lines, f"**{more} more warnings** stand under *All warnings*."] if more > 0 else lines


def what_won(facts: StudyResults) -> str:
    """The winner and its value, or why none wins."""
    if why := facts.why_none_wins:
        return f"**No winner**: {why}."
    objective = spoken(facts.study.objective)
    if facts.confirmed:
        winner, among = facts.confirmed[0], len(facts.confirmed)
        value = f"{objective} {mean_and_spread(winner.values(facts.study.objective))} on validation images"
        seeds = f"in the mean of {len(winner.replicates)} fresh seeds"
        if winner.trial.baseline and among == sum(c.trial.baseline is not None for c in facts.confirmed):
            return (
                f"**Baselines alone could be confirmed**: every searched candidate fell out. Of {among} "
                f"`{winner.trial.baseline}` is the best {seeds}: {value}."
            )
        if winner.trial.baseline:
            return (
                f"**Nothing that was searched beat `{winner.trial.baseline}` as published.** Of {among} candidates it "
                f"is the best {seeds}: {value}."
            )
        who = f"**Trial {winner.label} won**: {in_code(winner.trial)}"
        return f"{who}. Of {among} candidates it is the best {seeds}: {value}."
    if not facts.order:
        return "**No trial has run to its end**, so there is nothing to compare."
    best = facts.order[0]
    value = f"{objective} {best.last[facts.study.objective]:.4f} on validation images"
    who = f"**`{best.baseline}` as published is best**" if best.baseline else f"**Trial {best.number:03d} is best**"
    settings = "" if best.baseline else f": {in_code(best)}"
    return (
        f"{who}{settings}, with {value}. That is one seed, the best of {len(facts.order)} looks at the same images: it "
        "was not held against luck (`confirmation.top_k` says how many trials are)."
    )


def on_the_front(facts: StudyResults) -> str | None:
    """Of several objectives, who is beaten by nobody in all of them: those whose students are in `pareto/`."""
    front = [candidate.trial for candidate in candidates_on_the_front(facts.confirmed, facts.study)]
    of = f"{len(facts.confirmed)} confirmed trials, by their means"
    if not facts.confirmed:
        front, of = pareto_front(facts.order, facts.study), f"{len(facts.order)} trials"
    if not front:
        return None
    names = " and ".join(spoken(name) for name in facts.study.objectives)
    who = ", ".join(f"{trial.number:03d}" for trial in front[:MOST]) + (" and others" if len(front) > MOST else "")
    return f"**On the Pareto front** of {names} lie {len(front)} of {of}: {who} (`pareto/`)."


def by_how_much(facts: StudyResults) -> str | None:
    """The best searched settings against the best baseline, with certainty."""
    searched = [c for c in facts.confirmed if not c.trial.baseline]
    baseline = next((c for c in facts.confirmed if c.trial.baseline), None)
    if not searched:
        return None
    if baseline is None:
        return "No baseline was confirmed beside it, so nothing says whether it beats the published settings."
    best, metric = searched[0], facts.study.objective
    c = compare(best.values(metric), baseline.values(metric), facts.study.mode, len(searched))
    better = (c.difference < 0) == (facts.study.mode == "min")
    share = abs(c.difference) / abs(baseline.mean(metric)) if baseline.mean(metric) else 0.0
    won = best is facts.confirmed[0]
    said = f"Its {spoken(metric)} is" if won else f"The best that was searched, trial {best.label}, is"
    by = f"{'better' if better else 'worse'} by {abs(c.difference):.4f} ({percent(share, 1)})"
    by += f" than {'that of ' if won else ''}`{baseline.trial.baseline}` as published"
    interval = f"{c.sure_low:+.4f} to {c.sure_high:+.4f}"  # the wider one, as in the table
    pairs = f"better in {c.wins} of {c.pairs} seeds; 95 % interval of the difference {interval}"
    excluded = f" It breaks a constraint: {'; '.join(out)}." if (out := baseline.broken(facts.study)) else ""
    require_trial = "**More than chance explains.**" if c.distinguishable else "**Chance alone may explain that.**"
    return f"{said} {by}: {pairs}. {require_trial}{excluded}"


def luck(facts: StudyResults) -> str | None:
    """What became of the search's favorite when it ran with fresh seeds."""
    metric = facts.study.objective
    favorite = next((t for t in facts.order if not t.baseline), None)
    again = next((c for c in facts.confirmed if favorite and c.trial.number == favorite.number), None)
    if favorite is None or again is None:
        return None
    values, own = again.values(metric), favorite.last[metric]
    sign = 1 if facts.study.mode == "min" else -1
    lucky = sign * (fmean(values) - own) > stdev(values)
    return (
        f"The search liked trial {again.label} best: {own:.4f} with its one seed, {mean_and_spread(values)} with fresh "
        f"ones{': part of that was luck' if lucky else ', so it held up'}."
    )


def how_close(facts: StudyResults) -> str | None:
    """The winner beside ensemble and one teacher, metric by metric."""
    rows, where = winner_rows(facts)
    if not rows or not facts.teachers_beside:
        return None
    together, one = facts.teachers_beside
    parts = [
        f"{spoken(name)} {mean_and_spread([row[name] for row in rows])} ({together[name]:.4f}; {one[name]:.4f})"
        for name in ("accuracy", "nll", "cnll", "ece")
        if is_shown(name, *rows)
    ]
    once = f", {facts.looked}," if facts.tested else ""
    return (
        f"On {where}{once} a student of it has, in brackets all teachers together and one of them: {', '.join(parts)}."
    )


def worth(facts: StudyResults) -> str | None:
    """The deep-ensemble equivalent and the price; none of a student at chance, or beside teachers at chance."""
    rows, where = winner_rows(facts)
    if not rows or not facts.teachers_beside or is_at_chance(*rows):
        return None
    together, one = facts.teachers_beside
    if is_at_chance(one):
        return None
    teachers, equivalents = round(together["dee"]), [row["dee"] for row in rows]
    if teachers < 2:
        return None  # of one network there is no part
    mean, price = fmean(equivalents), _price(rows, one)
    if mean < 1.05:  # where the scale ends
        own = mean_and_spread([row["cnll"] for row in rows])
        return (
            f"**It is worth no more than one of the {teachers} teachers{price}**: its calibrated NLL on {where} is "
            f"{own}, that of one teacher in the mean {one['cnll']:.4f}."
        )
    worth = mean_and_spread(equivalents, 1)
    beyond = " or more" if mean > teachers - 0.05 else ""  # the other end
    doubt = "" if all(map(is_identified, (*rows, together))) else f" {UNCERTAIN}"
    return (
        f"**It is worth {worth}{beyond} of the {teachers} networks of the ensemble{price}**: so many of them together "
        f"have its calibrated NLL on {where} (deep-ensemble equivalent).{doubt}"
    )


def _price(rows: Sequence[Metrics], one: Metrics) -> str:
    """What a prediction costs in teachers, if that is known."""
    if "flops" not in rows[0] or not one.get("flops"):
        return ""
    share = fmean(row["flops"] for row in rows) / one["flops"]
    return f" at the price of {share:.2g}" if abs(share - 1) > 0.05 else " at the price of one"


def what_mattered(facts: StudyResults, found: Sequence[Importance]) -> str | None:
    """The settings that explain how good a trial is, and those that cannot be told from noise."""
    if not found:
        why = why_unknown(facts.trials, facts.study)
        return f"Which settings mattered cannot be said: {why}." if why else None
    searched = len(facts.search_trials)
    some = [f"`{i.name}` ({percent(i.share)}, {percent(i.low)} to {percent(i.high)})" for i in found if i.matters]
    rest = [f"`{i.name}`" for i in found if not i.matters]
    noise = f"not to be told from noise with {searched} trials: {', '.join(rest)}" if rest else ""
    if not some:
        return f"**No setting can be told from noise** with {searched} trials: {', '.join(rest)}."
    found_out = ", ".join(some) + (f"; {noise}" if noise else "")
    return f"**What mattered**, as share of the variance between trials, with 90 % intervals: {found_out}."


def stopping(facts: StudyResults, seen: Sequence[RungCorrelation]) -> str | None:
    """Whether early values foretell final ones."""
    stopped = sum(trial.state == "pruned" for trial in facts.trials)
    if not stopped or not seen:
        return None
    first = seen[0]
    sure = first.by_chance < 0.05  # of four trials even the same order comes by chance in one case of twelve
    trust = "a good guide" if sure and first.low > 0.3 else ("no guide" if first.high < 0.3 else "an uncertain guide")
    which = "1 trial was" if stopped == 1 else f"{stopped} trials were"
    return (
        f"{which} stopped early. The order after {first.epoch} epochs was {trust} to the final one "
        f"(Kendall's tau {first.tau:.2f}, {first.low:.2f} to {first.high:.2f}, over the {first.trials} that ran to "
        "their end)."
    )


def winner_rows(facts: StudyResults) -> tuple[Sequence[Metrics], str]:
    """Metrics of the winner, one row a seed, on the test images if they were looked at; and which images these are."""
    if facts.tested and facts.confirmed:
        known = facts.diagnostics
        images = f"{known.images} " if known and known.split == "test" else ""
        return facts.tested_of(facts.confirmed[0]), f"the {images}test images"
    if facts.confirmed:
        return [_plain(replicate) for replicate in facts.confirmed[0].replicates], "the validation images"
    return [_plain(trial) for trial in facts.order[:1]], "the validation images"


def shipped(facts: StudyResults) -> tuple[Candidate | None, TrialRecord | None]:
    """The winning candidate, and the one repeat (or trial) whose student ships."""
    if facts.why_none_wins:
        return None, None
    if facts.confirmed:
        return facts.confirmed[0], facts.confirmed[0].best(facts.study)
    return None, facts.order[0] if facts.order else None


def in_code(trial: TrialRecord) -> str:
    """The settings of a trial in short."""
    if trial.baseline:
        return "as published"
    return f"`{trial.settings}`" if trial.settings else "the settings that the study fixes"


def _plain(trial: TrialRecord) -> Metrics:
    return {name.split("/")[1]: value for name, value in trial.last.items() if "/" in name}
