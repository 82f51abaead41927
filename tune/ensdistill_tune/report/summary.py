"""The first three sentences of a report: the verdict, the distance to the ensemble, and the cost of a prediction."""

from collections.abc import Sequence
from statistics import fmean

from ensdistill.evaluation.metric_values import Metrics
from ensdistill.evaluation.plausibility import is_at_chance, is_identified
from ensdistill.runtime.formatting import mean_and_spread, percent
from ensdistill.runtime.text import counted, verb
from ensdistill_tune.analysis.leaderboard import format_metric
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.verdict import PairedComparison, best_baseline, compare, correction
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.objectives import LATENCY, PHOTO_LATENCY, spoken

UNCERTAIN = "This value is uncertain: the validation images do not determine every temperature on which it depends."
SAME = 0.02  # relative difference below which two costs count as equal


def answers(facts: StudyResults) -> list[str]:
    """Returns up to three sentences as Markdown; a sentence that does not apply or has no data is omitted."""
    if is_at_chance(*winner_rows(facts)[0]):
        return []  # the first line of the report states the reason
    first = [better_network(facts)]
    return first if facts.why_none_wins else first + [line for line in (worth(facts), cost(facts)) if line]


# --- is there a better network? ---


def better_network(facts: StudyResults) -> str:
    """Returns the verdict: the effect with its interval, then the significance; a significant verdict is in bold."""
    if why := facts.why_none_wins:
        return f"No winner: {why}."
    if not facts.order:
        return "No better network yet: no trial has completed."
    if not facts.confirmed:
        return _unconfirmed(facts)
    searched, baseline = searched_and_baseline(facts)
    if baseline is None:
        return (
            f"Whether trial {searched[0].label} is better than the published settings is unknown: no baseline was "
            f"confirmed. Its {_mean(searched[0], facts)} is the best of {counted(len(searched), 'candidate')}."
        )
    if not searched:
        return (
            "No better network was confirmed: only baselines completed the confirmation. The best one is "
            f"`{baseline.trial.baseline}`, {_mean(baseline, facts)}."
        )
    return _compared(facts, searched[0], baseline, compare_best(facts, searched, baseline))


def searched_and_baseline(facts: StudyResults) -> tuple[list[Candidate], Candidate | None]:
    """Returns the confirmed candidates of the search, best first, and the best confirmed baseline."""
    searched = [c for c in facts.confirmed if not c.trial.baseline]
    return searched, best_baseline(facts.confirmed)


def compare_best(facts: StudyResults, searched: Sequence[Candidate], baseline: Candidate) -> PairedComparison:
    """Compares the best searched candidate with the best baseline, corrected for the number of searched candidates."""
    return compare(searched[0], baseline, facts.study, len(searched))


def _compared(facts: StudyResults, best: Candidate, baseline: Candidate, c: PairedComparison) -> str:
    seeds = f"{c.wins} of {len(c.differences)} seeds {verb(c.wins)} better"
    sentence = f"{_claim(facts, best, baseline, c)}: {_effect(facts, baseline, c)}; {seeds}. {significance(c)}"
    broken = "; ".join(baseline.broken(facts.study))
    return sentence + (f" `{baseline.trial.baseline}` breaks a constraint: {broken}." if broken else "")


def _claim(facts: StudyResults, best: Candidate, baseline: Candidate, c: PairedComparison) -> str:
    name = f"`{baseline.trial.baseline}` as published"
    if c.outcome != "undecided":
        return f"**Trial {best.label} is {c.outcome} than {name}**"
    if c.improves and facts.confirmed[0] is best:
        return f"No network is significantly better than {name}; trial {best.label} comes closest"
    return f"No network is better than {name}; the best of the search is trial {best.label}"


def _effect(facts: StudyResults, baseline: Candidate, c: PairedComparison) -> str:
    metric, mean = facts.study.objective, baseline.mean(facts.study.objective)
    share = f", {100 * c.difference / abs(mean):+.1f} %" if mean else ""
    return f"{spoken(metric)} {c.difference:+.4f}{share} ({c.interval_text})"


def significance(c: PairedComparison) -> str:
    """Returns the standard sentence about the significance of a difference."""
    if c.outcome == "undecided":
        return "The difference is not statistically significant."
    return f"The difference is statistically significant at 5 %, {correction(c.among)}."


def _mean(candidate: Candidate, facts: StudyResults) -> str:
    value = mean_and_spread(candidate.values(facts.study.objective))
    return (
        f"{spoken(facts.study.objective)} of {value} on validation images over {len(candidate.replicates)} fresh seeds"
    )


def _unconfirmed(facts: StudyResults) -> str:
    best, metric = facts.order[0], facts.study.objective
    name = f"`{best.baseline}` as published" if best.baseline else f"trial {best.number:03d}"
    return (
        f"It is unknown whether a network is better: no trial was re-evaluated with fresh seeds. The best of "
        f"{len(facts.order)} single-seed evaluations is {name}, {spoken(metric)} {best.last[metric]:.4f} on validation "
        "images; this value is optimistic (selection bias)."
    )


# --- how close is it to the ensemble? ---


def worth(facts: StudyResults) -> str | None:
    """Returns the deep-ensemble equivalent and accuracies; None if the student or the teachers are at chance level."""
    rows, where = winner_rows(facts)
    if not rows or not facts.teachers_beside or is_at_chance(*rows):
        return None
    together, one = facts.teachers_beside
    teachers = round(together["dee"])
    if is_at_chance(one) or teachers < 2:
        return None  # the equivalent is not defined for a single network
    mean = fmean(row["dee"] for row in rows)
    right = f"accuracy {mean_and_spread([row['accuracy'] for row in rows])}"
    right += f" (ensemble {together['accuracy']:.4f}, single teacher {one['accuracy']:.4f})"
    if mean < 1.05:  # lower end of the scale
        own = mean_and_spread([row["cnll"] for row in rows])
        return (
            f"The student is no better than a single teacher: its calibrated NLL on {where} is {own}; the mean over "
            f"the {teachers} teachers is {one['cnll']:.4f}; {right}."
        )
    value = mean_and_spread([row["dee"] for row in rows], 1)
    beyond = " or more" if mean > teachers - 0.05 else ""  # upper end
    doubt = "" if all(map(is_identified, (*rows, together))) else f" {UNCERTAIN}"
    return (
        f"The student is as good as an ensemble of {value}{beyond} of the {teachers} teachers (deep-ensemble "
        f"equivalent on {where}); {right}.{doubt}"
    )


# --- at what cost? ---


def cost(facts: StudyResults) -> str | None:
    """Returns the cost of one prediction, also relative to the teachers; None if the student's cost is unknown."""
    rows, _ = winner_rows(facts)
    if not rows or "flops" not in rows[0]:
        return None
    flops = fmean(row["flops"] for row in rows)
    amount = f"{format_metric('cost/flops', flops)} FLOP per image{_relative(flops, facts)}"
    parameters = format_metric("cost/parameters", fmean(row.get("parameters", 0.0) for row in rows))
    trial = facts.confirmed[0].trial if facts.confirmed else facts.order[0]
    latency = f"; latency {trial.last[LATENCY]:.3g} ms per image" if LATENCY in trial.last else ""
    if PHOTO_LATENCY in trial.last:
        latency += f" ({trial.last[PHOTO_LATENCY]:.3g} ms including the resize of a 500x375 photo)"
    return f"The student costs {amount}; {parameters} parameters{latency}."


def _relative(flops: float, facts: StudyResults) -> str:
    """Returns the cost relative to the teachers, if their cost is known."""
    if not facts.teachers_beside or not facts.teachers_beside[1].get("flops"):
        return ""
    together, one = (row.get("flops", 0.0) for row in facts.teachers_beside)
    ratio = flops / one
    single = "the cost of a single teacher" if abs(ratio - 1) <= SAME else f"{ratio:.2g} times a single teacher"
    share = f"{percent(flops / together)} of the ensemble, " if together else ""
    return f" ({share}{single})"


# --- the winner ---


def winner_rows(facts: StudyResults) -> tuple[Sequence[Metrics], str]:
    """Returns the metrics of the winner, one row for each seed, and a description of the evaluated images.

    The images are test images after the test evaluation, and validation images before it.
    """
    if facts.tested and facts.confirmed:
        known = facts.diagnostics
        images = f"{known.images} " if known and known.split == "test" else ""
        return facts.tested_of(facts.confirmed[0]), f"the {images}test images"
    if facts.confirmed:
        return [_plain(replicate) for replicate in facts.confirmed[0].replicates], "the validation images"
    return [_plain(trial) for trial in facts.order[:1]], "the validation images"


def _plain(trial: TrialRecord) -> Metrics:
    return {name.split("/")[1]: value for name, value in trial.last.items() if "/" in name}


def shipped(facts: StudyResults) -> tuple[Candidate | None, TrialRecord | None]:
    """Returns the winning candidate, and the replicate (or trial) whose student is in `best/`."""
    if facts.why_none_wins:
        return None, None
    if facts.confirmed:
        return facts.confirmed[0], facts.confirmed[0].best(facts.study)
    return None, facts.order[0] if facts.order else None
