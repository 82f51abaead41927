"""All that a report is made from, read from the files of one study; nothing is trained or evaluated anew."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ensdistill.errors import ConfigIssue, DataError
from ensdistill.evaluation.evaluator import Metrics
from ensdistill.evaluation.tables import summarize_teachers, teacher_rows
from ensdistill.runtime.command_line import Option, command_line
from ensdistill.settings.validation import validate
from ensdistill_tune.analysis.importance import Importance, importance
from ensdistill_tune.analysis.labels import labeled
from ensdistill_tune.analysis.replication import Candidate, why_none_wins
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import LatencyMeasured, TestEvaluated
from ensdistill_tune.records.result_rows import Diagnostics, TestMetrics
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import PRIMARY, HoursUsed, TrialRecord, of_kind
from ensdistill_tune.study.study_config import StudyConfig


@dataclass(frozen=True)
class StudyResults:
    """One study as it stands: over, interrupted or still at work."""

    name: str
    study: StudyConfig
    summary: Mapping[str, Any]  # study.json
    trials: Sequence[TrialRecord]  # baselines and searched ones, by number
    replicates: Sequence[TrialRecord] = ()  # those of the confirmation
    confirmed: Sequence[Candidate] = ()  # best mean first; empty without a confirmation that is over
    tested: Sequence[TestMetrics] = ()  # the last look at the test images
    looks: int = 1  # how often these were looked at, for other students each time
    diagnostics: Diagnostics | None = None  # diagnostics.json
    studies: Path = Path("studies")  # the folder of all studies
    latency_machines: Sequence[str] = ()  # on which latencies were measured

    @property
    def order(self) -> list[TrialRecord]:
        """Trials that ran to their end, best first."""
        return self.study.rank(self.trials)

    @property
    def hours(self) -> HoursUsed:
        """The CPU and GPU hours of all trials, replicates included."""
        return HoursUsed.of((*self.trials, *self.replicates))

    @property
    def why_none_wins(self) -> str | None:
        """Why nothing wins although trials have completed: each breaks a constraint; None if something wins."""
        return why_none_wins(self.order, self.confirmed, self.study)

    @property
    def search_trials(self) -> list[TrialRecord]:
        """The trials without the baselines, by number."""
        return of_kind(self.trials, "search")

    @property
    def search_order(self) -> list[TrialRecord]:
        """The same, of those that completed, best first."""
        return of_kind(self.order, "search")

    @property
    def teachers(self) -> dict[str, Metrics]:
        """On validation images: the ensemble, and one teacher in the mean; empty before teachers are trained."""
        return teacher_rows(self.summary.get("teachers", {}))

    @property
    def teachers_beside(self) -> tuple[Metrics, Metrics] | None:
        """The ensemble and one teacher in the mean: on the test images if these were looked at, or else on validation.

        None before teachers are trained.
        """
        if self.tested and self.confirmed:
            of = {row.kind: row.metrics[0] for row in self.tested if row.kind != "candidate"}
            return of["ensemble"], of["teacher_mean"]
        known = summarize_teachers(self.summary.get("teachers", {}))
        return (known.ensemble, known.mean) if known else None

    def tested_of(self, candidate: Candidate) -> Sequence[Metrics]:
        """Metrics of a candidate on the test images, one row a seed; empty if it was not looked at there."""
        mine = (row.metrics for row in self.tested if row.kind == "candidate" and row.trial == candidate.trial.number)
        return next(mine, [])

    @property
    def tested_rows(self) -> Mapping[str, Sequence[Metrics]]:
        """Metrics on the test images, one row a seed, by label."""
        return labeled(self.tested, self.trials, self.ensemble_size)

    @property
    def ensemble_size(self) -> int:
        """How many teachers there are."""
        return len(self.summary.get("teachers", {}).get("members", []))

    @property
    def warnings(self) -> list[ConfigIssue]:
        """What seems wrong with students, teachers and images, in this order."""
        return [ConfigIssue.from_row(row) for row in self.summary.get("warnings", [])]

    def command(self, name: str, *options: Option) -> str:
        """A command about this study, to be typed where the study was launched."""
        return command_line("ensdistill-tune", name, self.name, options=options, studies=self.studies)

    @property
    def looked(self) -> str:
        """`looked at once`, or how often: with every look the images choose a little more."""
        return "looked at once" if self.looks < 2 else f"looked at {self.looks} times"

    @property
    def fell_out(self) -> list[TrialRecord]:
        """The trials of the confirmation that is over of which a repeat failed, so that they are no candidates."""
        failed = {replicate.replicate_of for replicate in self.replicates if replicate.state == "failed"}
        failed -= {candidate.trial.number for candidate in self.confirmed}
        return [trial for trial in self.trials if trial.number in failed] if self.confirmed else []

    @cached_property
    def importance(self) -> list[Importance]:
        """Which settings mattered, the most important first; seconds for a thousand trials, and found once."""
        return importance(self.trials, self.study)


def read_facts(home: Path) -> StudyResults:
    """Reads a study's folder. Raises DataError if there is no study, or one that has not begun."""
    folder = StudyDirectory(home)
    summary = folder.read_summary()
    study = validate(StudyConfig, summary["study"])
    if not folder.journal.exists():
        raise DataError(f"{home}: no trial has begun yet, so there is nothing to report")
    records = folder.read_trials()
    events = read_journal(folder.journal)
    looks = sum(isinstance(event, TestEvaluated) for event in events)
    machines = list(dict.fromkeys(event.machine for event in events if isinstance(event, LatencyMeasured)))
    trials, replicates = of_kind(records, *PRIMARY), of_kind(records, "replicate")
    confirmation = _read(home / "confirmation.json")
    confirmed = [_candidate(row, trials, replicates) for row in confirmation.get("candidates", [])]
    tested = [TestMetrics.model_validate(row) for row in confirmation.get("test", [])]
    drawn = _read(home / "diagnostics.json")
    diagnostics = Diagnostics.model_validate(drawn) if drawn else None
    return StudyResults(
        home.name, study, summary, trials, replicates, confirmed, tested, looks, diagnostics, home.parent, machines
    )


def _candidate(row: Mapping[str, Any], trials: Sequence[TrialRecord], replicates: Sequence[TrialRecord]) -> Candidate:
    """One candidate as confirmation.json has it: a study that is being extended has another plan by now."""
    trial = next(trial for trial in trials if trial.number == row["trial"])
    own = {replicate.seed: replicate for replicate in replicates if replicate.replicate_of == trial.number}
    return Candidate(trial, [own[seed] for seed in row["seeds"]])


def _read(file: Path) -> dict[str, Any]:
    """The content of a JSON file that may not be there yet."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        again = command_line("ensdistill-tune", "resume", file.parent.name, studies=file.parent.parent)
        raise DataError(f"{file}: damaged; `{again}` writes it again") from error
    return content
