"""Candidates of the confirmation: the top trials and the baselines, trained again with fresh seeds.

Fresh seeds remove selection bias. The winner is the candidate with the best mean over seeds on the validation set. The
test set is evaluated only once, after the winner has been selected.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ensdistill_tune.analysis.labels import trial_label
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.search.pareto import pareto_front_indices, select_diverse, to_minimization
from ensdistill_tune.study.study_config import StudyConfig


@dataclass(frozen=True)
class Candidate:
    """One trial and its replicates.

    Attributes:
        trial: A search trial or a baseline.
        replicates: Trials with the same settings and fresh seeds, in the order of the seeds.
        dropped_for: Number of the trial that was clearly ahead when the candidate was dropped; None if the candidate
            was not dropped.
        failed: Whether the candidate was excluded because one of its replicates failed.
    """

    trial: TrialRecord
    replicates: Sequence[TrialRecord]
    dropped_for: int | None = None
    failed: bool = False

    def values(self, metric: str) -> list[float]:
        """Returns the final value of a metric for each replicate, in the order of the seeds."""
        return [replicate.last[metric] for replicate in self.replicates]

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric over seeds."""
        return fmean(self.values(metric))

    def means(self, metrics: Iterable[str]) -> dict[str, float]:
        """Returns the means of several metrics over seeds; metrics that are missing in any replicate are omitted."""
        return {name: self.mean(name) for name in metrics if all(name in one.last for one in self.replicates)}

    def best(self, study: StudyConfig) -> TrialRecord:
        """Returns the best replicate (the first if several are equal); replicates that break a constraint rank last."""
        return study.rank(self.replicates)[0]

    def violation(self, study: StudyConfig) -> float:
        """Returns the amount by which the candidate's means violate the constraints; 0 if all constraints are met."""
        return study.violation(self.means(study.constraints))

    def broken(self, study: StudyConfig) -> list[str]:
        """Returns a description of each constraint that the means of the candidate break."""
        return study.broken_by(self.means(study.constraints))

    @property
    def label(self) -> str:
        """Label of the trial, such as `baseline kd` or `024`."""
        return trial_label(self.trial)


def choose_candidates(trials: Sequence[TrialRecord], study: StudyConfig) -> list[TrialRecord]:
    """Returns the trials to confirm: the top search trials, best first, then every completed baseline.

    Search trials that break a constraint are included only if all search trials break one.

    Args:
        trials: Search trials and baselines.
        study: The settings.

    Returns:
        The trials; empty if the confirmation is disabled.
    """
    if not study.confirmation.top_k:
        return []
    order = _without_duplicates(study.rank(trials))
    return _best([t for t in order if not t.baseline], study) + [t for t in order if t.baseline]


def _without_duplicates(order: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the trials, except those that have the same settings as a baseline or an earlier trial."""
    first = {trial.config_hash: trial for trial in (*reversed(order), *(t for t in order if t.baseline))}
    return [trial for trial in order if first[trial.config_hash] is trial or trial.baseline]


def _best(order: list[TrialRecord], study: StudyConfig) -> list[TrialRecord]:
    """Returns the top trials.

    With several objectives, these are the trial with the best first objective and trials spread over the Pareto front.

    Trials that break a constraint are excluded. If all trials break one, those closest to the constraints are returned.
    """
    feasible = study.feasible(order)
    if not feasible:
        return order[: study.confirmation.top_k]
    order = feasible
    if not study.secondary_objectives:
        return order[: study.confirmation.top_k]
    return [order[n] for n in select_diverse(objective_vectors(order, study), study.confirmation.top_k)]


def objective_vectors(trials: Sequence[TrialRecord], study: StudyConfig) -> list[tuple[float, ...]]:
    """Returns the objectives of completed trials, with signs changed so that smaller values are always better."""
    return [to_minimization([trial.last[name] for name in study.objectives], study.modes) for trial in trials]


def sort_candidates(found: Iterable[Candidate], study: StudyConfig) -> list[Candidate]:
    """Returns the candidates, best first.

    Candidates whose means break a constraint are last. Among the others, candidates with more seeds come first, because
    a candidate with fewer seeds was dropped or failed. Candidates with the same number of seeds are ordered by mean.
    """
    sign = -1 if study.mode == "max" else 1

    def key(c: Candidate) -> tuple[float, int, float, int]:
        return c.violation(study), -len(c.replicates), sign * c.mean(study.objective), c.trial.number

    return sorted(found, key=key)


def winner_of(order: Sequence[Candidate], study: StudyConfig) -> Candidate | None:
    """Returns the first candidate; None if its means break a constraint, because then all other candidates do too."""
    return order[0] if order and not order[0].violation(study) else None


def candidates_on_the_front(order: Sequence[Candidate], study: StudyConfig) -> list[Candidate]:
    """Returns the Pareto front of the candidates' means over seeds; empty if there is only one objective.

    Candidates whose means break a constraint are excluded.

    Args:
        order: The candidates, best first.
        study: The settings.
    """
    order = [c for c in order if not c.violation(study)]
    means = [to_minimization([c.mean(name) for name in study.objectives], study.modes) for c in order]
    return [order[n] for n in pareto_front_indices(means)] if study.secondary_objectives and order else []
