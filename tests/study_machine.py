"""Runs user actions and crashes in any order: launch, kill, resume, extend, enqueue, stop, move, report, sync.

    python -m tests.study_machine --examples 500           (some minutes)

Hypothesis draws the order of steps, and shortens an order that fails. Trials are simulated; no process is started.
The following must hold after each step:

- the log starts with its earlier content, and its events are possible: numbers and epochs have no gaps, nothing follows
  the end of a trial, running trials do not exceed the slots, and search trials do not exceed the budget;
- the records of the running session equal those computed from the log.

Finally, the study runs until it has finished. The search must then have all its trials, every accepted request must
have a trial, and MLflow must contain the same data as the log.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution.requests import StudyRequests
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import (
    EpochReported,
    Event,
    ReportWritten,
    SessionEnded,
    SessionStarted,
    SettingsEnqueued,
    TrialEnded,
    TrialResumed,
    TrialStarted,
)
from ensdistill_tune.records.inbox import EnqueueRequest, StopRequest
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS, OVER, Trials, apply_event, of_kind
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.search.suggester import REQUEST
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState
from tests.fake_mlflow import FakeStore
from tests.simulation import check_mlflow, send

EPOCHS, SLOTS = 4, 2
SPACE: dict[str, Any] = {
    "preset": "latentbe",
    "config": {"training": {"epochs": EPOCHS}},
    "search": {
        "loss.temperature": {"log_uniform": [1, 10]},
        "averaging.kind": {"choice": ["none", "ema"]},
        "averaging.decay": {"uniform": [0.5, 0.9], "when": {"averaging.kind": "ema"}},
    },
    "baselines": ["kd"],
    "searcher": {"kind": "tpe", "startup_trials": 2},
    "scheduler": {"kind": "asha", "grace_epochs": 1},
    "confirmation": {"top_k": 1, "seeds": 2},
}


class Session:
    """One session of the study, with two slots and trials that report one epoch each in turn."""

    def __init__(self, study: StudyConfig, home: Path) -> None:
        self.state = StudyState(study, StudyDirectory(home), {}, trial_warnings)
        self.state.folder.inbox.drop_stops()
        self.state.append_event(SessionStarted())
        self.planner, self.at = TrialPlanner(self.state, SLOTS), dict[int, int]()
        self.requests = StudyRequests(self.planner)
        self._suggested = dict[int, dict[str, Any]]()

    def step(self) -> bool:
        """Starts trials in free slots, reports an epoch of each trial, and returns whether the session continues."""
        self.requests._due = 0.0  # as if half a second had passed
        if self.requests.stop_study():
            return self._end("interrupted")
        while isinstance(suggestion := self.planner.next(), dict):
            self._suggested[suggestion["number"]] = suggestion
            self.at[suggestion["number"]] = 0  # the trial starts at its first epoch, without a checkpoint
        if self.planner.done:
            return self._end("finished")
        for number in list(self.at):
            self._epoch(number)
        return True

    def close(self) -> None:
        """Closes the event log, as at the end of a process."""
        self.state._log._file.close()

    def _epoch(self, number: int) -> None:
        self.at[number] += 1
        epoch, folder = self.at[number], self.state.folder.trial(number)
        if epoch == EPOCHS:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / STUDENT_FILE).touch()
        words = json.dumps([self._suggested[number][name] for name in ("baseline", "sampled", "seed")], sort_keys=True)
        own = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") / 2**32
        metrics = {"epoch": float(epoch), "epochs": float(EPOCHS)} | dict.fromkeys(METRICS, own + (1 - own) / epoch)
        stopped = self.planner.report(number, metrics) is Decision.STOP
        if epoch == EPOCHS or stopped:
            self.planner.end(number, "finished" if epoch == EPOCHS else "pruned")
            del self.at[number]

    def _end(self, state: str) -> bool:
        for trial in self.state.running:
            self.planner.end(trial.number, "interrupted")
        best = self.state.best
        self.state.append_event(SessionEnded(state=state, best=best and best.number))
        self.state.save(state)
        return False


class StudyMachine(RuleBasedStateMachine):
    """A study, and the actions that Hypothesis applies to it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.home, self.moves = self.root / "study", 0
        self.home.mkdir()
        self.session: Session | None = None
        self.trials, self.seen, self.store = 3, list[Event](), FakeStore()

    @property
    def study(self) -> StudyConfig:
        """The current settings."""
        return StudyConfig.model_validate(SPACE | {"budget": {"trials": self.trials}})

    @property
    def log(self) -> Path:
        """The event log."""
        return self.home / "events.jsonl"

    # --- actions ---

    @precondition(lambda self: self.session is None)
    @rule()
    def launch_or_resume(self) -> None:
        """Starts a new session."""
        self.session = Session(self.study, self.home)

    @precondition(lambda self: self.session is not None)
    @rule(rounds=st.integers(1, 6))
    def work(self, rounds: int) -> None:
        """Runs some epochs."""
        for _ in range(rounds):
            if self.session and not self.session.step():
                self._close()

    @precondition(lambda self: self.session is not None)
    @rule(part=st.sampled_from([b"", b"{", b'{"crc": "0123']))
    def kill(self, part: bytes) -> None:
        """Ends the process, possibly while it writes a record."""
        self._close()
        with self.log.open("ab") as file:
            file.write(part)

    @precondition(lambda self: self.session is None and self.trials < 9)
    @rule(more=st.integers(1, 2))
    def extend(self, more: int) -> None:
        """Increases the budget."""
        self.trials += more

    @rule(temperature=st.floats(0.5, 10), whole=st.booleans())
    def enqueue(self, temperature: float, whole: bool) -> None:
        """Enqueues settings, which may be outside the search space or arrive after the last trial."""
        given: dict[str, Any] = {"loss.temperature": temperature}
        given |= {"averaging.kind": "ema", "averaging.decay": 0.75} if whole else {}
        StudyDirectory(self.home).inbox.send(EnqueueRequest(settings=given))

    @rule(number=st.none() | st.integers(1, 9))
    def stop(self, number: int | None) -> None:
        """Requests a stop of the study, or of a trial, which may be missing or not running."""
        StudyDirectory(self.home).inbox.send(StopRequest(trial=number))

    @precondition(lambda self: self.session is None)
    @rule()
    def move(self) -> None:
        """Renames the folder of the study."""
        self.moves += 1
        self.home = self.home.rename(self.root / f"moved{self.moves}")

    @precondition(lambda self: self.session is None and self.log.exists())
    @rule()
    def report(self) -> None:
        """Writes a report between two sessions."""
        state = StudyState(self.study, StudyDirectory(self.home), {}, trial_warnings)
        state.append_event(ReportWritten(note="again"))
        state._log._file.close()

    @precondition(lambda self: self.seen)
    @rule()
    def sync(self) -> None:
        """Sends pending events to MLflow."""
        assert send(self.study, self.home, self.store) == 0

    # --- invariants ---

    @invariant()
    def the_log_continues_and_is_possible(self) -> None:
        """Checks the log and the records of the session after each step."""
        events = read_journal(self.log)
        assert events[: len(self.seen)] == self.seen
        self.seen = events
        trials = replayed(events)
        assert len(of_kind(trials.values(), "search")) <= self.trials
        if self.session:
            assert self.session.state.trials == trials

    def teardown(self) -> None:
        """Runs the study until it has finished, and checks the result."""
        try:
            self._finish()
        finally:
            self._close()
            shutil.rmtree(self.root)

    def _finish(self) -> None:
        for _ in range(3):  # a request to stop may end the first session
            self.session = self.session or Session(self.study, self.home)
            while self.session.step():
                pass
            self._close()
        trials = replayed(read_journal(self.log))
        searched = of_kind(trials.values(), "search")
        assert len(searched) == self.trials
        assert {trial.state for trial in trials.values()} <= set(OVER)
        used = [trial.memory[REQUEST] for trial in searched if REQUEST in trial.memory]
        enqueued = [event.request for event in read_journal(self.log) if isinstance(event, SettingsEnqueued)]
        assert sorted(used) == sorted(enqueued)
        check_mlflow(self.study, self.home, self.store)

    def _close(self) -> None:
        if self.session:
            self.session.close()
        self.session = None


def replayed(events: list[Event]) -> Trials:
    """Returns the records of a log after checking that each event is possible."""
    trials, running = Trials(), set[int]()
    for event in events:
        match event:
            case SessionStarted():
                pass  # trials of a killed session are still running until the next event ends them
            case TrialStarted(trial=number):
                assert number == len(trials) + 1
                running.add(number)
            case TrialResumed(trial=number):
                assert trials[number].state == "interrupted"
                running.add(number)
            case EpochReported(trial=number, metrics=metrics):
                assert number in running
                assert metrics["epoch"] == len(trials[number].epochs) + 1
            case TrialEnded(trial=number):
                assert number in running or trials[number].state == "interrupted"
                running.discard(number)
        assert len(running) <= SLOTS
        apply_event(trials, event)
    return trials


def options_of(examples: int) -> settings:
    """Returns settings of Hypothesis: equal examples in each run, and no time limit, because machines may be loaded."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=quiet,
    )


def main() -> None:
    """Runs many examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500)
    examples = parser.parse_args().examples
    run_state_machine_as_test(StudyMachine, settings=options_of(examples))
    print(f"{examples} studies, each with up to 30 steps in any order: none failed")


if __name__ == "__main__":
    main()
