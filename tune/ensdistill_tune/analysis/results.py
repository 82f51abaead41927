"""The results of a study, read from its files, while it runs too; nothing is trained or evaluated again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensdistill.config import Config
from ensdistill.errors import ConfigError, ConfigIssue, DataError
from ensdistill.evaluation.evaluator import Metrics
from ensdistill.evaluation.tables import summarize_teachers, teacher_rows
from ensdistill.runtime.command_line import Option, command_line
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.settings.validation import validate
from ensdistill_tune.analysis.importance import Importance, importance
from ensdistill_tune.analysis.labels import labeled
from ensdistill_tune.analysis.leaderboard import pareto_front
from ensdistill_tune.analysis.replication import Candidate, Verdict, candidates_on_the_front, verdict, why_none_wins
from ensdistill_tune.analysis.trial_times import TrialTimes, trial_times
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import LatencyMeasured, TestEvaluated
from ensdistill_tune.records.result_rows import Diagnostics, TestMetrics
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import PRIMARY, HoursUsed, TrialRecord, Trials, apply_event, of_kind
from ensdistill_tune.study.study_config import StudyConfig

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class StudyResults:
    """The results of a study at one moment: finished, interrupted or while it runs. `load_results` reads them again.

    Attributes:
        name: Name of the study.
        study: Its settings.
        summary: The content of study.json.
        trials: Baselines and searched trials, by number.
        replicates: Trials of the confirmation, by number.
        confirmed: Candidates of the confirmation, best mean first; empty before it has completed.
        tested: Metrics on the test set; empty if it was not evaluated.
        times: When each trial began and ended, by number.
    """

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
    times: Mapping[int, TrialTimes] = field(default_factory=dict)
    write_report: Callable[[Path], tuple[list[Path], str]] | None = field(default=None, repr=False)  # of a layer above

    # --- for users ---

    @property
    def state(self) -> str:
        """State of the study: `running`, `confirming`, `finished`, `timed_out`, `interrupted`, `failed`, `crashed`."""
        return str(self.summary["state"])

    @property
    def home(self) -> Path:
        """The folder of the study."""
        return self.studies / self.name

    @property
    def best_trial(self) -> TrialRecord:
        """The trial that ships: the best replicate of the confirmed winner, before that the best trial so far.

        Raises:
            DataError: No trial has completed, or none that meets the constraints.
        """
        if not self.order:
            raise DataError(f"{self.home}: no trial has completed, so there is no best one")
        if why := why_none_wins(self.order, self.confirmed, self.study):
            raise DataError(f"{self.home}: {why}")
        if self.confirmed:
            return self.confirmed[0].best(self.study)
        return self.order[0]

    @property
    def best_config(self) -> Config:
        """All settings of `best_trial`: `ensdistill.distill` trains the same student with them."""
        return self.study.config_for(self.best_trial)

    @property
    def pareto_trials(self) -> list[TrialRecord]:
        """The trials that no other one is better than in all objectives, best first in the first objective.

        After the confirmation its candidates are compared, by their means over seeds. With one objective it is the best
        trial.
        """
        if not self.study.secondary_objectives:
            return [self.confirmed[0].trial] if self.confirmed else self.order[:1]
        if self.confirmed:
            return [candidate.trial for candidate in candidates_on_the_front(self.confirmed, self.study)]
        return pareto_front(self.order, self.study)

    @cached_property
    def verdict(self) -> Verdict | None:
        """The confirmed winner against the best baseline, with its numbers; None without a confirmation."""
        return verdict(self.confirmed, self.study) if self.confirmed else None

    def trials_dataframe(self) -> pd.DataFrame:
        """Returns one row for each baseline and searched trial, by number.

        Columns as Optuna has them: `number`, `state`, `value` (`values_<metric>` of several objectives; NaN unless the
        trial completed), `datetime_start`, `datetime_complete`, `duration`, `params_<setting>`. In addition `kind`,
        `baseline`, `epochs`, all metrics after the last epoch, `config_hash` and `error`. States are those of a
        trial here: `finished`, `pruned`, `failed`, `running`, `interrupted`.
        """
        from ensdistill_tune.analysis.dataframes import trials_dataframe  # here and below: slow imports

        return trials_dataframe(self.study, self.trials, self.times)

    def history_dataframe(self) -> pd.DataFrame:
        """Returns one row for each epoch of each trial, replicates included: `number`, `epoch` and all metrics."""
        from ensdistill_tune.analysis.dataframes import history_dataframe

        return history_dataframe([*self.trials, *self.replicates])

    def replicates_dataframe(self) -> pd.DataFrame:
        """Returns one row for each replicate: `number`, `replicate_of`, `seed`, `state`, `value`, metrics."""
        from ensdistill_tune.analysis.dataframes import replicates_dataframe

        return replicates_dataframe(self.study, self.replicates, self.times)

    def to_optuna(self, storage: str | None = None) -> optuna.Study:
        """Returns the searched trials as a study of Optuna's, for `optuna.visualization` and Optuna's dashboard.

        Their attribute `trial` is our number. The values of the baselines are attributes of the study: a baseline has
        settings of its own, which are no point of the search space.

        Args:
            storage: URL of a storage of Optuna's, such as `sqlite:///optuna.db`, which `optuna-dashboard
                sqlite:///optuna.db` shows; None for memory. A copy that was written there before is replaced.

        Raises:
            DataError: The storage has another study of this name.
        """
        from ensdistill_tune.analysis.optuna_study import to_optuna

        return to_optuna(self.study, self.name, self.summary["study_id"], self.trials, self.times, storage)

    def student(self, trial: int | None = None) -> nn.Module:
        """Returns the student of a trial: one merged network in evaluation mode, on the CPU.

        Args:
            trial: Number of a trial or replicate that completed; None for `best_trial`.

        Returns:
            A module: images (B,C,H,W) in [0,1] -> logits (B,classes).

        Raises:
            ConfigError: The trial did not complete, so that it has no student.
            DataError: The file of the student is missing or damaged.
        """
        from ensdistill.export.student_file import load_deployable

        known = {one.number: one for one in (*self.trials, *self.replicates)}
        chosen = self.best_trial if trial is None else known.get(trial)
        if chosen is None:
            raise ConfigError(f"trial {trial}: {self.name} has trials 1 to {len(known)}")
        if chosen.state != "finished":
            raise ConfigError(f"trial {trial}: is {chosen.state} and left no student. Choose one that is finished.")
        return load_deployable(self._folder.trial(chosen.number) / STUDENT_FILE, run_imported=True).network

    def report(self) -> Path:
        """Writes report.html, report.md and figures/ of the study as it is now, and returns the path of report.html."""
        if self.write_report is None:
            raise DataError(f"{self.home}: results of `load_results` write the report, these do not")
        return self.write_report(self.home)[0][0]

    @property
    def _folder(self) -> StudyDirectory:
        return StudyDirectory(self.home)

    # --- for the report ---

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
        """`evaluated once`, or the number of evaluations: each one weakens the test set."""
        return "evaluated once" if self.looks < 2 else f"evaluated {self.looks} times"

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
    confirmation = _read(home / "confirmation.json")  # before the log: what it names has ended
    events, records = read_journal(folder.journal), Trials()
    for event in events:
        apply_event(records, event)
    looks = sum(isinstance(event, TestEvaluated) for event in events)
    machines = list(dict.fromkeys(event.machine for event in events if isinstance(event, LatencyMeasured)))
    own = [records[number] for number in sorted(records)]
    trials, replicates = of_kind(own, *PRIMARY), of_kind(own, "replicate")
    confirmed = [_candidate(row, trials, replicates) for row in confirmation.get("candidates", [])]
    tested = [TestMetrics.model_validate(row) for row in confirmation.get("test", [])]
    drawn = _read(home / "diagnostics.json")
    diagnostics = Diagnostics.model_validate(drawn) if drawn else None
    about = (confirmed, tested, looks, diagnostics, home.parent, machines, trial_times(events))
    return StudyResults(home.name, study, summary, trials, replicates, *about)


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
