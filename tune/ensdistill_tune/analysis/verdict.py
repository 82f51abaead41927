"""The verdict of a study: the winner compared with the best baseline by the sequential test over fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import fmean

from ensdistill.runtime.text import counted, verb
from ensdistill_tune.analysis.labels import trial_label
from ensdistill_tune.analysis.replication import Candidate, winner_of
from ensdistill_tune.analysis.sequential_test import EARLY, LEVEL, SequentialTest, fewest_pairs
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig


@dataclass(frozen=True)
class PairedComparison:
    """Difference between two candidates, paired by seed.

    If the searched candidates are exchangeable with the baseline, the probability that the test finds at least one of
    them better is at most 5 %. This error rate covers all candidates and all interim looks of the sequential test, and
    is divided equally among the candidates.

    Attributes:
        differences: Objective of the first candidate minus objective of the second, one difference per common seed.
        mode: `min` or `max`: the direction in which the objective improves.
        among: Number of searched candidates in the confirmation.
    """

    differences: tuple[float, ...]
    mode: str
    among: int = 1

    @cached_property
    def test(self) -> SequentialTest:
        """The sequential test of the gains; a positive gain means that the first candidate is better."""
        level = LEVEL / self.among
        return SequentialTest(self._gains, level, level, EARLY)

    @property
    def outcome(self) -> str:
        """Outcome for the first candidate: `better`, `worse` or `undecided`."""
        if len(self.differences) < fewest_pairs(LEVEL / self.among, EARLY):
            return "undecided"  # decided without `test`, which would import NumPy
        return _outcome(self._gains, self.among)

    @property
    def difference(self) -> float:
        """Mean of `differences`."""
        return fmean(self.differences)

    @property
    def improves(self) -> bool:
        """True if the first candidate has the better mean."""
        return fmean(self._gains) > 0

    @property
    def wins(self) -> int:
        """Number of pairs in which the first candidate is better."""
        return sum(gain > 0 for gain in self._gains)

    @property
    def interval(self) -> tuple[float, float]:
        """90 % confidence interval of the mean difference; infinite if there are too few pairs for a decision.

        The total error rate at each end, over all candidates and all interim looks, is 5 %. The interval excludes zero
        if and only if there is a decision.
        """
        low, high = _interval(self._gains, self.among)
        return (low, high) if self.mode == "max" else (-high, -low)

    @property
    def interval_text(self) -> str:
        """The interval as text."""
        low, high = self.interval
        return f"90 % confidence interval {low:+.4f} to {high:+.4f}" if math.isfinite(low + high) else TOO_FEW

    @property
    def _gains(self) -> tuple[float, ...]:
        return self.differences if self.mode == "max" else tuple(-d for d in self.differences)


TOO_FEW = "too few seeds for an interval"


@lru_cache(maxsize=256)
def _outcome(gains: tuple[float, ...], among: int) -> str:
    """Returns the outcome of the test; cached, because the planner requires it for each new trial."""
    return PairedComparison(gains, "max", among).test.outcome


@lru_cache(maxsize=256)
def _interval(gains: tuple[float, ...], among: int) -> tuple[float, float]:
    """Returns the interval of the gains; cached, because a report shows it in several places."""
    return PairedComparison(gains, "max", among).test.interval


def compare(first: Candidate, second: Candidate, study: StudyConfig, among: int = 1) -> PairedComparison:
    """Returns the comparison of two candidates over their common seeds.

    Args:
        first: A candidate.
        second: Another candidate, such as the best baseline.
        study: The settings.
        among: Number of searched candidates in the confirmation.
    """
    metric = study.objective
    pairs = zip(first.values(metric), second.values(metric), strict=False)  # a dropped candidate has fewer seeds
    return PairedComparison(tuple(a - b for a, b in pairs), study.mode, among)


def why_none_wins(trials: Sequence[TrialRecord], confirmed: Sequence[Candidate], study: StudyConfig) -> str | None:
    """Returns why no completed trial wins, and which one is closest to the constraints; None if a trial wins.

    Args:
        trials: Trials of the search, best first, as `StudyConfig.rank` returns them.
        confirmed: The confirmed candidates, best first; empty without a confirmation.
        study: The settings.
    """
    if confirmed:
        return None if winner_of(confirmed, study) else verdict(confirmed, study).sentence
    if not trials or not study.violation(trials[0].last):
        return None
    nearest = f"{trial_label(trials[0])} ({'; '.join(study.broken_by(trials[0].last))})"
    trained = counted(len(trials), "completed trial")
    return f"none of {trained} meets the constraints, so none wins; the closest is {nearest}"


@dataclass(frozen=True)
class Verdict:
    """Comparison of the winner with the best baseline.

    Attributes:
        sentence: The verdict as one sentence, as in confirmation.json.
        winner: The candidate with the best mean among those that meet the constraints; if none does, the candidate
            closest to the constraints.
        baseline: The best baseline; None if none was confirmed.
        comparison: Winner minus baseline, paired by seed; None if there is nothing to compare.
        better: True if a searched candidate wins and the sequential test finds it better than the best baseline.
    """

    sentence: str
    winner: Candidate
    baseline: Candidate | None = None
    comparison: PairedComparison | None = None
    better: bool = False

    def __str__(self) -> str:
        return self.sentence


def searched_among(order: Sequence[Candidate]) -> int:
    """Returns the number of comparisons for which the test is corrected: one per searched candidate, at least 1."""
    return max(1, sum(not c.trial.baseline for c in order))


def best_baseline(order: Sequence[Candidate]) -> Candidate | None:
    """Returns the first baseline; None if no candidate is a baseline."""
    return next((c for c in order if c.trial.baseline), None)


def verdict(order: Sequence[Candidate], study: StudyConfig) -> Verdict:
    """Returns the comparison of the winner with the best baseline, and any constraints that either of them breaks.

    Args:
        order: At least one candidate, best first, as `confirmation_of` returns them.
        study: The settings.
    """
    winner, meets = order[0], " that meet the constraints" if study.constraints else ""
    if winner.violation(study):
        text = (
            f"none of {counted(len(order), 'candidate')} meets the constraints on average over "
            f"{seeds_in_words(order)}, so none wins; the closest is {winner.label} ({'; '.join(winner.broken(study))})"
        )
        return Verdict(text, winner)
    baseline = best_baseline(order)
    if baseline is None:
        text = f"{winner.label} is the best of {counted(len(order), 'candidate')}; no baseline was confirmed"
        return Verdict(text, winner)
    if all(c.trial.baseline for c in order):
        text = f"{winner.label} is the best of {counted(len(order), 'candidate')}; no searched settings were confirmed"
        return Verdict(text, winner, baseline)
    if winner is baseline:
        text = f"no searched settings{meets} beat {baseline.trial.baseline} as published over {seeds_in_words(order)}"
        return Verdict(text, winner, baseline)
    c = compare(winner, baseline, study, searched_among(order))
    text, excluded = _in_words(winner, baseline, c, study), "; ".join(baseline.broken(study))
    text += f"; {baseline.trial.baseline} breaks a constraint ({excluded})" if excluded else ""
    return Verdict(text, winner, baseline, c, c.outcome == "better")


def seeds_in_words(order: Sequence[Candidate]) -> str:
    """Returns the number of fresh seeds of the candidates, such as `3 to 7 seeds`."""
    counts = {len(c.replicates) for c in order}
    least, most = min(counts), max(counts)
    return f"{least} to {most} seeds" if least < most else counted(most, "seed")


def dropped_in_words(candidate: Candidate, order: Sequence[Candidate]) -> str:
    """Returns a clause that states when and why a candidate was dropped; empty if it was not dropped."""
    why = why_dropped(candidate, order)
    return f"dropped after {counted(len(candidate.replicates), 'seed')}, {why}" if why else ""


def why_dropped(candidate: Candidate, order: Sequence[Candidate]) -> str:
    """Returns why a candidate was dropped (behind a rival, or a failed replicate); empty if it was not dropped."""
    if candidate.failed:
        return "a replicate failed"
    rival = next((c.label for c in order if c.trial.number == candidate.dropped_for), None)
    return f"behind {rival}" if rival else ""


def correction(among: int) -> str:
    """Returns a description of the corrections that are applied to the interval."""
    return f"corrected for {counted(among, 'candidate')} and sequential testing"


def _in_words(winner: Candidate, baseline: Candidate, c: PairedComparison, study: StudyConfig) -> str:
    """Returns the verdict as text. The winner can be worse than a baseline only if the baseline breaks a constraint."""
    figures = (
        f"{study.objective.removeprefix('val/')} {c.difference:+.4f} ({c.interval_text}, {correction(c.among)}); "
        f"{c.wins} of {len(c.differences)} seeds {verb(c.wins)} better"
    )
    words = {"better": "better than", "worse": "worse than", "undecided": "not distinguishable from"}
    return f"{winner.label} is {words[c.outcome]} {baseline.trial.baseline} as published: {figures}"
