"""Standings of the candidates at the end of a session, as tags and descriptions of their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ensdistill.runtime.formatting import mean_and_spread
from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.analysis.labels import trial_label
from ensdistill_tune.analysis.replication import winner_of
from ensdistill_tune.analysis.verdict import dropped_in_words
from ensdistill_tune.records.events import SessionEnded
from ensdistill_tune.records.trial_record import PRIMARY, TrialRecord, of_kind
from ensdistill_tune.study.study_config import StudyConfig

WINNER, CONFIRMED, BEST = "winner", "confirmed", "best of the search"


@dataclass(frozen=True)
class Standing:
    """Standing of one trial.

    Attributes:
        result: Value of the tag `result`: `winner`, `confirmed` or `best of the search`.
        sentence: Description of the run.
        label: Label of the trial.
        values: Values of the objective, one for each replicate; empty if there was no confirmation.
    """

    result: str
    sentence: str
    label: str
    values: Sequence[float] = ()


def standings(trials: Mapping[int, TrialRecord], event: SessionEnded, study: StudyConfig) -> dict[int, Standing]:
    """Returns the standing of each confirmed trial, or of the best trial of a search without confirmation.

    Args:
        trials: All trials of the study, keyed by number.
        event: The event at the end of the session.
        study: The settings.
    """
    if event.state != "finished":
        return {}
    own, replicates = of_kind(trials.values(), *PRIMARY), of_kind(trials.values(), "replicate")
    order = confirmation_of(own, replicates, study).candidates
    if not order:
        sentence = f"Best trial of the search: {study.objective} {{:.4f}} with a single seed; not confirmed."
        best = [trials[event.best]] if event.best is not None else []
        return {
            trial.number: Standing(BEST, sentence.format(trial.last[study.objective]), trial_label(trial))
            for trial in best
        }
    winner, found = winner_of(order, study), dict[int, Standing]()
    for place, candidate in enumerate(order, 1):
        values = candidate.values(study.objective)
        head = "**Winner of the study.**" if candidate is winner else f"Confirmed, place {place} of {len(order)}."
        mean = f"{study.objective} {mean_and_spread(values)} over {len(values)} fresh seeds"
        mean += f"; {dropped}" if (dropped := dropped_in_words(candidate, order)) else ""
        broken = f"; breaks {'; '.join(rules)}" if (rules := candidate.broken(study)) else ""
        result = WINNER if candidate is winner else CONFIRMED
        found[candidate.trial.number] = Standing(result, f"{head} {mean}{broken}.", candidate.label, values)
    return found


def run_name(trial: TrialRecord, result: str = "") -> str:
    """Returns the name of a trial's run: the name of the trial, with a mark if the trial is the winner."""
    number, _, rest = trial.name.partition(" ")
    return f"{number} WINNER {rest}" if result == WINNER else trial.name


def description(trial: TrialRecord) -> str:
    """Returns the description for the run of a trial without a standing."""
    if trial.replicate_of is not None:
        original = f"baseline {trial.baseline}" if trial.baseline else f"trial {trial.replicate_of:03d}"
        return f"Replicate of {original} with seed {trial.seed}: the same settings, trained again after the search."
    if trial.baseline:
        return f"Baseline: the published settings of `{trial.baseline}`, trained for all epochs."
    return "Trial of the search, with one seed."
