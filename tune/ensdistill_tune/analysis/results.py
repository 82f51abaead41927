"""Results of a study, read from its files, even while the study is running; no network is trained or evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensdistill.config import Config
from ensdistill.errors import ConfigError, ConfigIssue, DataError
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.evaluation.tables import summarize_teachers, teacher_rows
from ensdistill.runtime.command_line import Option, command_line
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.settings.validation import validate
from ensdistill_tune.analysis.confirmation import Stage
from ensdistill_tune.analysis.importance import Importance, importance
from ensdistill_tune.analysis.labels import labeled
from ensdistill_tune.analysis.leaderboard import pareto_front
from ensdistill_tune.analysis.rank_correlation import RungCorrelation, foresight
from ensdistill_tune.analysis.replication import Candidate, candidates_on_the_front
from ensdistill_tune.analysis.trial_times import TrialTimes, trial_times
from ensdistill_tune.analysis.verdict import Verdict, verdict, why_none_wins
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
    """Results of a finished, interrupted or running study at one point in time.

    To get a newer state, call `load_results` again.

    Attributes:
        name: Name of the study.
        study: Settings of the study.
        summary: The content of study.json.
        trials: Baselines and search trials, ordered by number.
        replicates: Trials of the confirmation, ordered by number.
        confirmed: Candidates of the confirmation, best mean first; empty until the confirmation has completed.
        stages: Stages of the completed confirmation.
        tested: Metrics of the last test evaluation; empty if the test set was not evaluated.
        looks: Number of test evaluations; each evaluated a different set of students.
        diagnostics: The content of diagnostics.json.
        studies: Folder that contains all studies.
        latency_machines: Machines on which latencies were measured.
        times: Start and end times of each trial, keyed by trial number.
        write_report: Function that writes the report; it is passed in, because it belongs to a higher layer.
    """

    name: str
    study: StudyConfig
    summary: Mapping[str, Any]
    trials: Sequence[TrialRecord]
    replicates: Sequence[TrialRecord] = ()
    confirmed: Sequence[Candidate] = ()
    stages: Sequence[Stage] = ()
    tested: Sequence[TestMetrics] = ()
    looks: int = 1
    diagnostics: Diagnostics | None = None
    studies: Path = Path("studies")
    latency_machines: Sequence[str] = ()
    times: Mapping[int, TrialTimes] = field(default_factory=dict)
    write_report: Callable[[Path], tuple[list[Path], str]] | None = field(default=None, repr=False)

    # --- for users ---

    @property
    def state(self) -> str:
        """State of the study: `running`, `confirming`, `finished`, `timed_out`, `interrupted`, `failed`, `crashed`."""
        return str(self.summary["state"])

    @property
    def home(self) -> Path:
        """Folder of the study."""
        return self.studies / self.name

    @property
    def best_trial(self) -> TrialRecord:
        """Trial whose student is exported: the best replicate of the confirmed winner, or the best trial so far.

        Raises:
            DataError: No trial has completed, or no completed trial meets the constraints.
        """
        if not self.order:
            raise DataError(f"{self.home}: no trial has completed; there is no best trial")
        if why := why_none_wins(self.order, self.confirmed, self.study):
            raise DataError(f"{self.home}: {why}")
        if self.confirmed:
            return self.confirmed[0].best(self.study)
        return self.order[0]

    @property
    def best_config(self) -> Config:
        """Full configuration of `best_trial`; with it, `ensdistill.distill` trains the same student again."""
        return self.study.config_for(self.best_trial)

    @property
    def pareto_trials(self) -> list[TrialRecord]:
        """Pareto front, ordered by the first objective.

        Once the confirmation has completed, its candidates are compared by their means over seeds. With a single
        objective, the front contains only the best trial.
        """
        if not self.study.secondary_objectives:
            return [self.confirmed[0].trial] if self.confirmed else self.order[:1]
        if self.confirmed:
            return [candidate.trial for candidate in candidates_on_the_front(self.confirmed, self.study)]
        return pareto_front(self.order, self.study)

    @cached_property
    def verdict(self) -> Verdict | None:
        """Comparison of the confirmed winner with the best baseline; None without a confirmation."""
        return verdict(self.confirmed, self.study) if self.confirmed else None

    def trials_dataframe(self) -> pd.DataFrame:
        """Returns a DataFrame with one row for each baseline and search trial, ordered by number.

        The following columns are named as in Optuna: `number`, `state`, `value` (`values_<metric>` with several
        objectives; NaN unless the trial completed), `datetime_start`, `datetime_complete`, `duration`,
        `params_<setting>`. Further columns are `kind`, `baseline`, `epochs`, all metrics after the last epoch,
        `config_hash` and `error`. The states are `finished`, `pruned`, `failed`, `running` and `interrupted`.
        """
        from ensdistill_tune.analysis.dataframes import trials_dataframe  # here, because this import is slow

        return trials_dataframe(self.study, self.trials, self.times)

    def history_dataframe(self) -> pd.DataFrame:
        """Returns a DataFrame with one row for each epoch of each trial, including replicates.

        The columns are `number`, `epoch` and all metrics.
        """
        from ensdistill_tune.analysis.dataframes import history_dataframe

        return history_dataframe([*self.trials, *self.replicates])

    def replicates_dataframe(self) -> pd.DataFrame:
        """Returns a DataFrame with one row for each replicate.

        Its columns include `number`, `replicate_of`, `seed`, `state`, `value` and all metrics.
        """
        from ensdistill_tune.analysis.dataframes import replicates_dataframe

        return replicates_dataframe(self.study, self.replicates, self.times)

    def to_optuna(self, storage: str | None = None) -> optuna.Study:
        """Returns the search trials as an Optuna study, for use with `optuna.visualization` or Optuna's dashboard.

        The user attribute `trial` contains the trial's number in this study. The objectives of the baselines are user
        attributes of the Optuna study, because the settings of a baseline are not a point in the search space.

        Args:
            storage: URL of an Optuna storage, such as `sqlite:///optuna.db` (open it with `optuna-dashboard
                sqlite:///optuna.db`); None keeps the study in memory. An earlier copy in the storage is replaced.

        Raises:
            DataError: The storage contains a different study with this name.
        """
        from ensdistill_tune.analysis.optuna_study import to_optuna

        return to_optuna(self.study, self.name, self.summary["study_id"], self.trials, self.times, storage)

    def student(self, trial: int | None = None) -> nn.Module:
        """Returns the student of a trial: one merged network in evaluation mode, on the CPU.

        Args:
            trial: Number of a completed trial or replicate; None for `best_trial`.

        Returns:
            A module: images (B,C,H,W) in [0,1] -> logits (B,classes).

        Raises:
            ConfigError: The trial has not completed and therefore has no student.
            DataError: The student's file is missing or damaged.
        """
        from ensdistill.export.student_file import load_deployable

        known = {one.number: one for one in (*self.trials, *self.replicates)}
        chosen = self.best_trial if trial is None else known.get(trial)
        if chosen is None:
            raise ConfigError(f"trial {trial}: {self.name} has trials 1 to {len(known)}")
        if chosen.state != "finished":
            raise ConfigError(f"trial {trial}: must be finished, got {chosen.state}. Choose another trial.")
        return load_deployable(self._folder.trial(chosen.number) / STUDENT_FILE, run_imported=True).network

    def report(self) -> Path:
        """Writes report.html, report.md and figures/ for the current state of the study.

        Returns:
            The path of report.html.

        Raises:
            DataError: The object was not returned by `load_results`.
        """
        if self.write_report is None:
            rule = "no report can be written from these results; use the results of `load_results`"
            raise DataError(f"{self.home}: {rule}")
        return self.write_report(self.home)[0][0]

    @property
    def _folder(self) -> StudyDirectory:
        return StudyDirectory(self.home)

    # --- for the report ---

    @property
    def order(self) -> list[TrialRecord]:
        """Completed trials, best first."""
        return self.study.rank(self.trials)

    @property
    def hours(self) -> HoursUsed:
        """CPU and GPU hours of all trials, including replicates."""
        return HoursUsed.of((*self.trials, *self.replicates))

    @property
    def why_none_wins(self) -> str | None:
        """Reason why no trial wins, if all completed trials break a constraint; None otherwise."""
        return why_none_wins(self.order, self.confirmed, self.study)

    @property
    def search_trials(self) -> list[TrialRecord]:
        """Search trials, without the baselines, ordered by number."""
        return of_kind(self.trials, "search")

    @property
    def search_order(self) -> list[TrialRecord]:
        """Completed search trials, without the baselines, best first."""
        return of_kind(self.order, "search")

    @property
    def teachers(self) -> dict[str, Metrics]:
        """Validation metrics of the ensemble, and means over the teachers; empty before the teachers are trained."""
        return teacher_rows(self.summary.get("teachers", {}))

    @property
    def teachers_beside(self) -> tuple[Metrics, Metrics] | None:
        """Metrics of the ensemble, and means over the teachers; None before the teachers are trained.

        The metrics are computed on the test set, or on the validation set if the test set was not evaluated.
        """
        if self.tested and self.confirmed:
            of = {row.kind: row.metrics[0] for row in self.tested if row.kind != "candidate"}
            return of["ensemble"], of["teacher_mean"]
        known = summarize_teachers(self.summary.get("teachers", {}))
        return (known.ensemble, known.mean) if known else None

    def tested_of(self, candidate: Candidate) -> Sequence[Metrics]:
        """Returns the test metrics of a candidate, one row per seed; empty if it was not evaluated on the test set."""
        mine = (row.metrics for row in self.tested if row.kind == "candidate" and row.trial == candidate.trial.number)
        return next(mine, [])

    @property
    def tested_rows(self) -> Mapping[str, Sequence[Metrics]]:
        """Metrics on the test set, keyed by label, with one row per seed."""
        return labeled(self.tested, self.trials, self.ensemble_size)

    @property
    def ensemble_size(self) -> int:
        """Number of teachers."""
        return len(self.summary.get("teachers", {}).get("members", []))

    @property
    def warnings(self) -> list[ConfigIssue]:
        """Warnings about students, teachers and images, in this order."""
        return [ConfigIssue.from_row(row) for row in self.summary.get("warnings", [])]

    def command(self, name: str, *options: Option) -> str:
        """Returns a command line for this study, to be run in the folder from which the study was launched."""
        return command_line("ensdistill-tune", name, self.name, options=options, studies=self.studies)

    @property
    def looked(self) -> str:
        """`evaluated once` or `evaluated n times`; stated because repeated evaluation can bias the test metrics."""
        return "evaluated once" if self.looks < 2 else f"evaluated {self.looks} times"

    @property
    def fell_out(self) -> list[TrialRecord]:
        """Trials that a completed confirmation excluded because one of their replicates failed."""
        failed = {replicate.replicate_of for replicate in self.replicates if replicate.state == "failed"}
        failed -= {candidate.trial.number for candidate in self.confirmed}
        return [trial for trial in self.trials if trial.number in failed] if self.confirmed else []

    @cached_property
    def importance(self) -> list[Importance]:
        """Importance of the searched settings, largest first; computed on first access (seconds for 1000 trials)."""
        return importance(self.trials, self.study)

    @cached_property
    def rank_correlations(self) -> list[RungCorrelation]:
        """Rank correlations between the values at the scheduler's rungs and the final values."""
        return foresight(self.trials, self.study)


def read_facts(home: Path) -> StudyResults:
    """Reads the results of a study from its folder.

    Args:
        home: The folder of the study.

    Raises:
        DataError: The study is missing, no trial has started, or a file is damaged.
    """
    folder = StudyDirectory(home)
    summary = folder.read_summary()
    study = validate(StudyConfig, summary["study"])
    if not folder.journal.exists():
        raise DataError(f"{home}: no trial has started yet; there is nothing to report")
    confirmation = _read(home / "confirmation.json")  # read before the log, so that the log contains its trials
    events, records = read_journal(folder.journal), Trials()
    for event in events:
        apply_event(records, event)
    looks = sum(isinstance(event, TestEvaluated) for event in events)
    machines = list(dict.fromkeys(event.machine for event in events if isinstance(event, LatencyMeasured)))
    own = [records[number] for number in sorted(records)]
    trials, replicates = of_kind(own, *PRIMARY), of_kind(own, "replicate")
    confirmed = [_candidate(row, trials, replicates) for row in confirmation.get("candidates", [])]
    stages = [_stage(row) for row in confirmation.get("stages", [])]
    tested = [TestMetrics.model_validate(row) for row in confirmation.get("test", [])]
    drawn = _read(home / "diagnostics.json")
    diagnostics = Diagnostics.model_validate(drawn) if drawn else None
    about = (confirmed, stages, tested, looks, diagnostics, home.parent, machines, trial_times(events))
    return StudyResults(home.name, study, summary, trials, replicates, *about)


def _candidate(row: Mapping[str, Any], trials: Sequence[TrialRecord], replicates: Sequence[TrialRecord]) -> Candidate:
    """Returns a candidate with the replicates stored in confirmation.json, even if more have completed since then."""
    trial = next(trial for trial in trials if trial.number == row["trial"])
    own = {replicate.seed: replicate for replicate in replicates if replicate.replicate_of == trial.number}
    return Candidate(trial, [own[seed] for seed in row["seeds"]], row["dropped_for"], row["failed"])


def _stage(row: Mapping[str, Any]) -> Stage:
    """Returns a stage from confirmation.json; the trial numbers that JSON stores as string keys become integers."""
    return Stage(**{**row, "dropped": {int(number): rival for number, rival in row["dropped"].items()}})


def _read(file: Path) -> dict[str, Any]:
    """Returns the content of a JSON file; empty if the file does not exist yet."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        again = command_line("ensdistill-tune", "resume", file.parent.name, studies=file.parent.parent)
        raise DataError(f"{file}: not valid JSON; the file may be damaged. `{again}` rewrites it.") from error
    return content
