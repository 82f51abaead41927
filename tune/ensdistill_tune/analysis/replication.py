"""Confirmation: re-runs the top trials and the baselines with fresh seeds, to remove selection bias.

The winner is the candidate with the best mean over seeds on the validation set. The test set is evaluated afterwards,
once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ensdistill.runtime.text import counted, verb
from ensdistill_tune.analysis.labels import trial_label
from ensdistill_tune.analysis.statistics import PairedComparison, compare
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.search.pareto import pareto_front_indices, select_diverse, to_minimization
from ensdistill_tune.study.study_config import StudyConfig


@dataclass(frozen=True)
class Candidate:
    """One trial and its replicates.

    Attributes:
        trial: A searched trial or a baseline.
        replicates: The same settings with fresh seeds, in the order of the seeds.
    """

    trial: TrialRecord
    replicates: Sequence[TrialRecord]

    def values(self, metric: str) -> list[float]:
        """Returns the metric after the last epoch of each replicate, in the order of the seeds."""
        return [replicate.last[metric] for replicate in self.replicates]

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric over seeds."""
        return fmean(self.values(metric))

    def means(self, metrics: Iterable[str]) -> dict[str, float]:
        """Returns the means of several metrics over seeds; metrics that a replicate lacks are omitted."""
        return {name: self.mean(name) for name in metrics if all(name in one.last for one in self.replicates)}

    def best(self, study: StudyConfig) -> TrialRecord:
        """Returns the best replicate; replicates that break a constraint rank last, and ties go to the first."""
        return study.rank(self.replicates)[0]

    def violation(self, study: StudyConfig) -> float:
        """Returns the amount by which the means of the candidate break the constraints; 0 if they are met."""
        return study.violation(self.means(study.constraints))

    def broken(self, study: StudyConfig) -> list[str]:
        """Returns a description of each constraint that the means of the candidate break."""
        return study.broken_by(self.means(study.constraints))

    @property
    def label(self) -> str:
        """Label of the trial, such as `baseline kd` or `024`."""
        return trial_label(self.trial)


def plan_replicates(trials: Sequence[TrialRecord], study: StudyConfig) -> list[tuple[TrialRecord, int]]:
    """Returns the plan of the confirmation: the top searched trials and every completed baseline, with fresh seeds.

    Searched trials that break a constraint are included only if all of them do. The fresh seeds follow those of the
    search. All candidates use the same seeds, so that they can be compared in pairs.

    Args:
        trials: Trials of the search and baselines.
        study: The settings.

    Returns:
        Pairs of trial and seed, seed by seed; empty without a confirmation.
    """
    if not study.confirmation.top_k:
        return []
    order, seed = _without_duplicates(study.rank(trials)), study.max_search_seed
    chosen = _best([t for t in order if not t.baseline], study) + [t for t in order if t.baseline]
    return [(trial, seed + 1 + k) for k in range(study.confirmation.seeds) for trial in chosen]


def _without_duplicates(order: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the trials without those whose settings equal the settings of a baseline or of an earlier trial."""
    first = {trial.config_hash: trial for trial in (*reversed(order), *(t for t in order if t.baseline))}
    return [trial for trial in order if first[trial.config_hash] is trial or trial.baseline]


def _best(order: list[TrialRecord], study: StudyConfig) -> list[TrialRecord]:
    """Returns the top trials; with several objectives, the best in the first one and others across the Pareto front.

    Trials that break a constraint are excluded. If all of them do, those closest to the constraints are returned.
    """
    feasible = study.feasible(order)
    if not feasible:
        return order[: study.confirmation.top_k]
    order = feasible
    if not study.secondary_objectives:
        return order[: study.confirmation.top_k]
    return [order[n] for n in select_diverse(objective_vectors(order, study), study.confirmation.top_k)]


def objective_vectors(trials: Sequence[TrialRecord], study: StudyConfig) -> list[tuple[float, ...]]:
    """Returns the objectives of completed trials, with signs changed so that smaller is better in all of them."""
    return [to_minimization([trial.last[name] for name in study.objectives], study.modes) for trial in trials]


def candidates(trials: Sequence[TrialRecord], replicates: Sequence[TrialRecord], study: StudyConfig) -> list[Candidate]:
    """Returns the confirmed candidates: each trial of the plan with its replicates.

    A trial with a replicate that failed or has not run is excluded.

    Args:
        trials: Trials of the search and baselines.
        replicates: Trials of the confirmation.
        study: The settings.

    Returns:
        The candidates, best mean first; those whose means break a constraint are last.
    """
    done = {
        (replicate.replicate_of, replicate.seed): replicate for replicate in replicates if replicate.state == "finished"
    }
    wanted: dict[int, list[TrialRecord | None]] = {}
    for trial, seed in plan_replicates(trials, study):
        wanted.setdefault(trial.number, []).append(done.get((trial.number, seed)))
    by_number = {trial.number: trial for trial in trials}
    whole = {number: [replicate for replicate in own if replicate] for number, own in wanted.items() if all(own)}
    sign = -1 if study.mode == "max" else 1
    found = [Candidate(by_number[number], own) for number, own in whole.items()]
    return sorted(found, key=lambda c: (c.violation(study), sign * c.mean(study.objective), c.trial.number))


def winner_of(order: Sequence[Candidate], study: StudyConfig) -> Candidate | None:
    """Returns the first of these candidates; None if its means, and thus those of all others, break a constraint."""
    return order[0] if order and not order[0].violation(study) else None


def candidates_on_the_front(order: Sequence[Candidate], study: StudyConfig) -> list[Candidate]:
    """Returns the Pareto front of the candidates, by their means over seeds; empty with a single objective.

    Candidates whose means break a constraint are excluded.

    Args:
        order: The candidates, best first.
        study: The settings.
    """
    order = [c for c in order if not c.violation(study)]
    means = [to_minimization([c.mean(name) for name in study.objectives], study.modes) for c in order]
    return [order[n] for n in pareto_front_indices(means)] if study.secondary_objectives and order else []


def why_none_wins(trials: Sequence[TrialRecord], confirmed: Sequence[Candidate], study: StudyConfig) -> str | None:
    """Returns why no trial wins although trials have completed, with the closest trial; None if there is a winner.

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
        winner: The candidate with the best mean among those that meet the constraints; the closest one if none does.
        baseline: The best baseline; None if none was confirmed.
        comparison: Winner minus baseline, paired by seed; None if there is nothing to compare.
        better: True if searched settings win and their advantage over the best baseline is statistically significant.
    """

    sentence: str
    winner: Candidate
    baseline: Candidate | None = None
    comparison: PairedComparison | None = None
    better: bool = False

    def __str__(self) -> str:
        return self.sentence


def verdict(order: Sequence[Candidate], study: StudyConfig) -> Verdict:
    """Returns the comparison of the winner with the best baseline, and the constraints that either of them breaks.

    Args:
        order: At least one candidate, best first, as `candidates` returns them.
        study: The settings.
    """
    winner, meets = order[0], " that meet the constraints" if study.constraints else ""
    if winner.violation(study):
        text = (
            f"none of {counted(len(order), 'candidate')} meets the constraints on average over "
            f"{len(winner.replicates)} seeds, so none wins; the closest is {winner.label} "
            f"({'; '.join(winner.broken(study))})"
        )
        return Verdict(text, winner)
    baseline = next((c for c in order if c.trial.baseline), None)
    if baseline is None:
        text = f"{winner.label} is the best of {counted(len(order), 'candidate')}; no baseline was confirmed"
        return Verdict(text, winner)
    if all(c.trial.baseline for c in order):
        text = f"{winner.label} is the best of {counted(len(order), 'candidate')}; no searched settings were confirmed"
        return Verdict(text, winner, baseline)
    if winner is baseline:
        seeds = len(winner.replicates)
        text = f"no searched settings{meets} beat {baseline.trial.baseline} as published on average over {seeds} seeds"
        return Verdict(text, winner, baseline)
    among = sum(not c.trial.baseline for c in order)
    c = compare(winner.values(study.objective), baseline.values(study.objective), study.mode, among)
    text, excluded = _in_words(winner, baseline, c, study, among), "; ".join(baseline.broken(study))
    text += f"; {baseline.trial.baseline} breaks a constraint ({excluded})" if excluded else ""
    return Verdict(text, winner, baseline, c, c.distinguishable and (c.difference < 0) == (study.mode == "min"))


def _in_words(winner: Candidate, baseline: Candidate, c: PairedComparison, study: StudyConfig, among: int) -> str:
    """Returns the verdict as text. The baseline can be better than the winner only if it breaks a constraint."""
    corrected = f", Bonferroni-corrected for {among} candidates" if among > 1 else ""
    change = f"{study.objective.removeprefix('val/')} {c.difference:+.4f} ({c.interval}{corrected})"
    figures = f"{change}; {c.wins} of {c.pairs} seeds {verb(c.wins)} better"
    if c.distinguishable:
        word = "better" if (c.difference < 0) == (study.mode == "min") else "worse"
        return f"{winner.label} is {word} than {baseline.trial.baseline} as published: {figures}"
    return f"{winner.label} is not distinguishable from {baseline.trial.baseline} as published: {figures}"
