"""Estimate of the remaining time of a study, based on its recent rate."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from ensdistill_tune.console.snapshot import StudySnapshot, epoch_of, first_epoch_of
from ensdistill_tune.records.trial_record import OVER, UNDER_WAY, HoursUsed, TrialRecord, of_kind
from ensdistill_tune.search.pbt import Pbt


def estimate_remaining(snapshot: StudySnapshot) -> float | None:
    """Returns the remaining time at the recent rate, limited to what is left of `budget.minutes`.

    Returns:
        Seconds; None if the study is not running or its rate is not known yet.
    """
    pace, minutes = snapshot.paces[1], snapshot.study.budget.minutes
    if snapshot.state not in UNDER_WAY or not pace:
        return None
    left = remaining_epochs(snapshot) / pace
    return left if minutes is None else max(0.0, min(left, 60 * minutes - snapshot.seconds))


def remaining_epochs(snapshot: StudySnapshot) -> float:
    """Returns the number of remaining search and confirmation epochs; fractional, because pruning is estimated."""
    left = _to_complete(snapshot, of_kind(snapshot.open, "baseline", "replicate"))
    left += snapshot.epochs * max(0, snapshot.replicates_expected - len(snapshot.replicates))
    if snapshot.state == "confirming":
        return left
    begun = sum(trial.baseline is not None for trial in snapshot.primary_trials)
    return left + snapshot.epochs * (len(snapshot.study.baselines) - begun) + max(0.0, _remaining_of_search(snapshot))


def _remaining_of_search(snapshot: StudySnapshot) -> float:
    """Returns the remaining epochs of the search; assumes that new trials are, on average, as long as ended ones."""
    own, budget = snapshot.search_trials, snapshot.study.budget
    trained = [epoch_of(trial) - first_epoch_of(trial) for trial in own]
    if isinstance(snapshot.study.scheduler, Pbt):  # a trial that is stopped is replaced by another one
        return snapshot.study.scheduler.population * snapshot.epochs - sum(trained)
    over = [epochs for epochs, trial in zip(trained, own, strict=True) if trial.state in OVER]
    share = fmean(over) / snapshot.epochs if over else 1.0
    more = (budget.trials - len(own)) * snapshot.epochs * share
    if budget.epochs is not None:
        more = min(more, budget.epochs - sum(trained))
    more = min([more, *_epochs_within_hours(snapshot, HoursUsed.of(own), sum(trained))])
    return max(0.0, more) + share * _to_complete(snapshot, of_kind(snapshot.open, "search"))


def _epochs_within_hours(snapshot: StudySnapshot, searched: HoursUsed, trained: int) -> Iterator[float]:
    """Yields the number of epochs that each budget in hours still allows at the mean cost of a search epoch."""
    budget, used = snapshot.study.budget, HoursUsed.of(snapshot.trials)
    for limit, own, total in ((budget.cpu_hours, searched.cpu, used.cpu), (budget.gpu_hours, searched.gpu, used.gpu)):
        if limit is not None and own and trained:
            yield max(0.0, limit - total) * trained / own


def _to_complete(snapshot: StudySnapshot, trials: Sequence[TrialRecord]) -> int:
    return sum(snapshot.epochs - epoch_of(trial) for trial in trials)
