"""Plans the trials of a study: interrupted trials, baselines, the search, and the confirmation of the top trials."""

import contextlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ensdistill.config import Config
from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.training.checkpoint import read_checkpoint
from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.analysis.leaderboard import pareto_front
from ensdistill_tune.records.events import (
    EpochReported,
    Event,
    SettingsEnqueued,
    State,
    StopRequested,
    TrialEnded,
)
from ensdistill_tune.records.trial_record import CHECKPOINT, PRIMARY, TrialRecord
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.search.pbt import Pbt
from ensdistill_tune.search.schedulers import StoppingRule
from ensdistill_tune.search.suggester import REQUEST, OptunaSearcher
from ensdistill_tune.study.objectives import LATENCY, PHOTO_LATENCY
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState

TrialRequest = dict[str, Any]  # initial fields of a trial record
Latency = Callable[[Config], dict[str, float]]  # latencies, keyed by metric; empty if the network cannot be built
PlannerIdle = Literal["wait", "done"]


class TrialPlanner:
    """Plans trials and decides after each report whether the trial continues. Does not depend on Ray.

    Decisions depend only on the study and the order of its events, so a crash does not change them.
    """

    def __init__(self, progress: StudyState, slots: int, latency: Latency | None = None) -> None:
        """Restores the state of the planner from the events of the study.

        Args:
            progress: State of the study.
            slots: Maximum number of trials that run in parallel.
            latency: Function that returns the latencies of a network; None if the study does not measure latencies.
        """
        self.progress, self.study, self.slots, self._latency = progress, progress.study, slots, latency
        self._suggester = suggester_of(self.study)
        self._rules = defaultdict[str, StoppingRule](lambda: self.study.make_stopping_rule())  # keyed by group
        self.done = False  # True if no trial is left to start and none is running
        self.ended = 0  # number of trials that ended in this session
        for trial in progress.died:
            progress.append_event(TrialEnded(trial=trial.number, state="interrupted"))
        self._with_student = {trial.number for trial in progress.index.searched if trial.state == "finished"}
        self._searched_out = False  # True if the searcher has no further settings to suggest
        self._queue: list[SettingsEnqueued] = []  # enqueued settings that no trial has used yet
        self._to_stop = set[int]()  # trials that must stop because of a request
        for event in progress.past:
            self.accept(event)
        past = (event for event in progress.past if isinstance(event, EpochReported))
        decisions = {event.trial: self._decide(event.trial, event.metrics) for event in past}
        for trial in progress.primary_trials:
            if _is_suggested(trial):
                self._suggester.restore(trial)
        left = [trial for trial in progress.trials.values() if trial.state == "interrupted"]
        for trial in left:
            stopped = trial.number in self._to_stop and bool(trial.epochs)
            last = Decision.STOP if stopped else decisions.get(trial.number, Decision.CONTINUE)
            self._finalize_interrupted(trial, last)
        self._left = [trial for trial in left if trial.state == "interrupted"]
        for trial in self._left:
            self._discard_future_checkpoint(trial)

    # --- the next trial ---

    def next(self) -> TrialRequest | PlannerIdle:
        """Returns the next trial, after recording its start.

        Returns:
            The trial; `wait` if it depends on a running trial or no slot is free; `done` if no trial is left.
        """
        if len(self.progress.running) >= self.slots:
            return "wait"
        trial = self._next()
        if trial is None:
            self.done = not self.progress.running
            if self.done:
                self._delete_branch_checkpoints()
            return "done" if self.done else "wait"
        names = ("number", "baseline", "sampled", "seed", "schedule", "parent")
        return {name: getattr(trial, name) for name in names}

    def _next(self) -> TrialRecord | None:
        if self._left:
            return self.progress.resume_trial(self._left.pop(0).number)
        if (baseline := next(self._baselines(), None)) is not None:
            return self._start(baseline=baseline)
        return self._search() or self._confirm()

    def _baselines(self) -> Iterator[str]:
        baselines = self.progress.primary_trials[: len(self.study.baselines)]  # baselines start first
        begun = {trial.baseline for trial in baselines}
        return (name for name in self.study.baselines if name not in begun)

    def _search(self) -> TrialRecord | None:
        if self._budget_is_spent():
            return None
        if isinstance(self.study.scheduler, Pbt):
            branch = self.study.scheduler.exploit_and_explore(
                self.study.space, self.study.merit, self.study.mode, self.progress.primary_trials
            )
            if branch is not None:
                return self._start(**branch)
            if sum(_is_suggested(trial) for trial in self.progress.primary_trials) >= self.study.scheduler.population:
                return None
        if self._searched_out and not self._queue:
            return None
        suggestion = self._suggester.suggest(self._free_number, self._queue.pop(0) if self._queue else None)
        if suggestion is None:
            self._searched_out = True
            return None
        return self._start(sampled=suggestion[0], memory=suggestion[1])

    def _budget_is_spent(self) -> bool:
        index, budget = self.progress.index, self.study.budget
        return (
            len(index.searched) >= budget.trials
            or (budget.epochs is not None and index.epochs >= budget.epochs)
            or self.progress.hours_are_spent
        )

    def _confirm(self) -> TrialRecord | None:
        """Starts the next replicate of the current stage and returns its record; None if no replicate can start now.

        During the search only baselines are replicated, because the top trials are not known yet.
        """
        searched, study = self.progress.primary_trials, self.study
        over = not self.progress.index.count(["running"], *PRIMARY)
        known = searched if over else [t for t in searched if t.baseline]
        confirmation = confirmation_of(known, self.progress.replicates, study)
        self.progress.replicates_planned = confirmation.planned if over else study.expected_replicates
        tried = Counter((trial.replicate_of, trial.seed) for trial in self.progress.replicates)
        failed = Counter(
            (trial.replicate_of, trial.seed) for trial in self.progress.replicates if trial.state == "failed"
        )
        for of, seed in confirmation.todo:
            if tried[of.number, seed] == failed[of.number, seed]:  # not started yet, or to be repeated after a failure
                self.progress.state = "confirming" if over else self.progress.state
                return self._start(of.baseline, of.sampled, replicate_of=of.number, seed=seed, schedule=of.schedule)
        return None

    def _start(self, baseline: str | None = None, sampled: dict[str, Any] | None = None, **more: Any) -> TrialRecord:
        record = {"baseline": baseline, "sampled": sampled or {}, "config_hash": "", **more}
        with contextlib.suppress(ConfigError):  # if settings are incompatible, the trial itself reports the error
            config = self.study.config_for(TrialRecord(0, **record))
            record["config_hash"] = config.hash
            if self._latency:
                self._latency(config)  # measured before the trial starts, when the machine may be idle
        return self.progress.start(self._free_number, **record)

    @property
    def _free_number(self) -> int:
        return next(reversed(self.progress.trials), 0) + 1  # trials start in the order of their numbers

    def _delete_branch_checkpoints(self) -> None:
        """Deletes all remaining checkpoints, because no further trial will start from them."""
        for trial in self.progress.trials.values():
            for file in self.progress.folder.trial(trial.number).glob("*.pt"):
                file.unlink()

    # --- requests ---

    def accept(self, event: Event) -> None:
        """Applies a request event: enqueues its settings, or marks its trial for stopping. Ignores other events."""
        match event:
            case SettingsEnqueued(request=request):
                if all(trial.memory.get(REQUEST) != request for trial in self.progress.trials.values()):
                    self._queue.append(event)
            case StopRequested(trial=int(number)):
                self._to_stop.add(number)

    @property
    def has_room(self) -> bool:
        """True if the search will start at least one trial in addition to the enqueued trials."""
        own = self.progress.index.searched
        places, taken = self.study.budget.trials, len(own)
        if isinstance(self.study.scheduler, Pbt):
            places, taken = self.study.scheduler.population, sum(map(_is_suggested, own))
        waits = taken + len(self._queue) < places
        return waits and not self._budget_is_spent() and self.progress.state != "confirming"

    # --- reports and ends ---

    def report(self, number: int, metrics: dict[str, float]) -> Decision:
        """Records an epoch and decides whether its trial continues.

        A trial that resumes at its last checkpoint reports some epochs again, with the same metrics. These repeated
        reports are ignored.

        Args:
            number: The trial.
            metrics: Metrics after the epoch.

        Returns:
            The decision; `STOP` if the trial has already ended.
        """
        trial = self.progress.trials[number]
        if trial.state != "running":
            return Decision.STOP
        if trial.epochs and metrics["epoch"] <= trial.last["epoch"]:
            return Decision.CONTINUE
        metrics = metrics | self._latency_of(trial)
        self.progress.report(number, metrics)
        if _is_suggested(trial):
            self._suggester.report(trial)
        decision = self._decide(number, metrics)
        return Decision.STOP if number in self._to_stop else decision

    def _latency_of(self, trial: TrialRecord) -> dict[str, float]:
        """Returns the latencies of the exported network; they do not change if the trial resumes on another machine."""
        known = {name: trial.last[name] for name in (LATENCY, PHOTO_LATENCY) if name in trial.last}
        if not known and self._latency:
            known = self._latency(self.study.config_for(trial))
        return known

    def end(self, number: int, state: State, error: str | None = None, error_kind: str | None = None) -> None:
        """Records the end of a trial and deletes files that are no longer needed.

        Args:
            number: The trial.
            state: Final state.
            error: Reason for a failure, as a message for the user.
            error_kind: Kind of the failure, which is the same for all trials that fail in the same way.
        """
        self.progress.end(number, state, error, error_kind)
        self.ended += 1
        trial = self.progress.trials[number]
        if _is_suggested(trial):
            self._suggester.tell(trial)
        if state == "finished":
            (self.progress.folder.trial(number) / CHECKPOINT).unlink(missing_ok=True)
            self._with_student |= {number} if trial.kind == "search" else set()
            self._keep_best_students()
        elif state != "interrupted" and not isinstance(self.study.scheduler, Pbt):
            shutil.rmtree(self.progress.folder.trial(number), ignore_errors=True)

    def _keep_best_students(self) -> None:
        """Deletes students of search trials that are neither among the best `num_to_keep` nor on the Pareto front.

        A deleted student cannot be restored, so only trials that still have a student are compared.
        """
        keep = self.study.resources.num_to_keep
        if keep is None:
            return
        students = {trial: self.progress.folder.trial(trial) / STUDENT_FILE for trial in self._with_student}
        order = self.study.rank(self.progress.trials[trial] for trial in students)
        stays = {trial.number for trial in [*order[:keep], *pareto_front(order, self.study)]}
        for trial in self._with_student - stays:
            students[trial].unlink(missing_ok=True)
        self._with_student = stays

    def trial_lost(self, number: int) -> None:
        """Queues a trial again after its process died before the trial started."""
        self.end(number, "interrupted")
        self._discard_future_checkpoint(self.progress.trials[number])
        self._left.append(self.progress.trials[number])

    def _decide(self, number: int, metrics: dict[str, float]) -> Decision:
        """Passes a report to the stopping rule, which compares and stops only search trials."""
        trial = self.progress.trials[number]
        if trial.kind != "search" or metrics["epoch"] == metrics["epochs"]:
            return Decision.CONTINUE
        values = self.study.compared_values(metrics)
        alike = repr([trial.sampled.get(name) for name in getattr(self.study.scheduler, "group_by", [])])
        return self._rules[alike].decide(trial.number, int(metrics["epoch"]), values)

    def _discard_future_checkpoint(self, trial: TrialRecord) -> None:
        """Deletes a checkpoint that is ahead of the event log, which can happen after a power failure."""
        file = self.progress.folder.trial(trial.number) / CHECKPOINT
        try:
            if not file.exists() or read_checkpoint(file).epoch <= trial.last.get("epoch", 0):
                return
        except DataError:
            pass  # a damaged checkpoint is deleted, too
        file.unlink()

    def _finalize_interrupted(self, trial: TrialRecord, last: Decision) -> None:
        """Records the end of a trial that was completed or stopped just before an interruption."""
        if trial.whole and (self.progress.folder.trial(trial.number) / STUDENT_FILE).exists():
            self.end(trial.number, "finished")
        elif last is Decision.STOP:
            self.end(trial.number, "pruned")


def _is_suggested(trial: TrialRecord) -> bool:
    return trial.kind == "search" and trial.replaces is None


def suggester_of(study: StudyConfig) -> OptunaSearcher:
    """Returns a new searcher for a study."""
    first, constraints = study.points_to_evaluate, study.constraints
    return OptunaSearcher(study.space, study.searcher, study.objectives, study.modes, first, constraints)
