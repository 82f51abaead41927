"""A session passes its outcome from phase to phase and is finished even after errors; observers follow its state."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ensdistill_tune import phases
from ensdistill_tune.analysis.outcome import SessionOutcome
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.console.final_summary import print_summary
from ensdistill_tune.console.live import ConsoleObserver
from ensdistill_tune.phases import Phase, run_phases
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import Event
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.study import study_state
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState

CONTEXT: Any = SimpleNamespace(observer=SimpleNamespace(console=None), state=None, tracker=None)
STUDY = StudyConfig.model_validate({"search": {"loss.temperature": {"uniform": [1, 2]}}})


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of `finish`, and of the summary after it."""
    calls: list[Any] = []
    monkeypatch.setattr(phases, "begin", lambda context: None)
    monkeypatch.setattr(phases, "finish", lambda context, outcome: calls.append(outcome) or 3)
    monkeypatch.setattr(phases, "print_summary", lambda *given: calls.append(given[-1]))
    return calls


def searched(context: Any, outcome: SessionOutcome) -> SessionOutcome:
    return replace(outcome, ended="finished")


def shipped(context: Any, outcome: SessionOutcome) -> SessionOutcome:
    return replace(outcome, files=(*outcome.files, Path("best")))


def raises(error: BaseException) -> Phase:
    def phase(context: Any, outcome: SessionOutcome) -> SessionOutcome:
        raise error

    return phase


def test_each_phase_receives_the_result_of_the_previous_one(
    finished: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "PHASES", (searched, shipped))
    assert run_phases(CONTEXT) == "finished"
    assert finished == [SessionOutcome("finished", files=(Path("study.json"), Path("best"))), 3]


@pytest.mark.parametrize(
    ("error", "ended"),
    [(OSError("full"), "failed"), (KeyboardInterrupt(), "interrupted"), (SystemExit(), "interrupted")],
)
def test_a_session_that_ends_with_an_error_keeps_the_results_of_earlier_phases(
    error: BaseException, ended: str, finished: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "PHASES", (searched, shipped, raises(error), shipped))
    with pytest.raises(type(error)):
        run_phases(CONTEXT)
    assert finished == [SessionOutcome(ended, files=(Path("study.json"), Path("best")))]


class Follower:
    """Observes log and trials, and records the contents of the files at each call."""

    def __init__(self, home: Path) -> None:
        self.home, self.seen = home, list[tuple[str, int, dict[str, int]]]()

    def on_event(self, event: Event) -> None:
        self.note(event.event)

    def trial_started(self, study: StudyState, trial: TrialRecord) -> None:
        self.note("begins")

    def trial_reported(self, study: StudyState, trial: TrialRecord) -> None:
        self.note("reports")

    def trial_ended(self, study: StudyState, trial: TrialRecord) -> None:
        self.note("ends")

    def note(self, what: str) -> None:
        summary = self.home / "study.json"
        counts = json.loads(summary.read_text())["counts"] if summary.exists() else {}
        self.seen.append((what, len(read_journal(self.home / "events.jsonl")), counts))


def test_log_observers_are_called_before_study_json_is_written_and_trial_observers_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_state, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(study_state, "SAVE_SHARE", float("inf"))
    follower = Follower(tmp_path)
    state = StudyState(STUDY, StudyDirectory(tmp_path), {}, trial_warnings, [follower], [follower])
    state.start(1, baseline=None, sampled={}, config_hash="")
    state.report(1, {"epoch": 1.0, "epochs": 1.0, "val/nll": 0.5})
    state.end(1, "finished")
    assert follower.seen == [
        ("trial_started", 1, {}),
        ("begins", 1, {"running": 1}),
        ("epoch_reported", 2, {"running": 1}),
        ("reports", 2, {"running": 1}),
        ("trial_ended", 3, {"running": 1}),
        ("ends", 3, {"finished": 1}),
    ]


def test_study_json_is_written_periodically_and_at_the_end_but_not_at_each_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[Any]()
    monkeypatch.setattr(StudyDirectory, "write_summary", lambda _, summary: written.append(summary["counts"]))
    monkeypatch.setattr(study_state, "SAVE_SECONDS", 3600.0)
    state = StudyState(STUDY, StudyDirectory(tmp_path), {}, trial_warnings)
    for number in range(1, 10):
        state.start(number, baseline=None, sampled={}, config_hash="")
        state.end(number, "failed")
    assert written == [{"running": 1}]
    state._next_save = 0.0  # an hour later
    state.start(10, baseline=None, sampled={}, config_hash="")
    assert written[1:] == [{"failed": 9, "running": 1}]
    state.end(10, "failed")
    state.save("finished")
    assert written[2:] == [{"failed": 10}]


def test_log_observers_receive_an_event_even_if_study_json_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left")

    follower = Follower(tmp_path)
    state = StudyState(STUDY, StudyDirectory(tmp_path), {}, trial_warnings, [follower], [follower])
    monkeypatch.setattr(StudyDirectory, "write_summary", full)
    with pytest.raises(OSError, match="no space left"):
        state.start(1, baseline=None, sampled={}, config_hash="")
    assert [what for what, *_ in follower.seen] == ["trial_started"]


def test_the_last_lines_state_the_pareto_folder_and_the_resume_command(tmp_path: Path) -> None:
    study = StudyConfig.model_validate(
        STUDY.model_dump(exclude_unset=True) | {"secondary_objectives": ["cost/flops"], "confirmation": {"top_k": 0}}
    )
    header = {"teachers": {}, "tracking_uri": "sqlite:///x"}
    (tmp_path / "s").mkdir()
    state = StudyState(study, StudyDirectory(tmp_path / "s"), header, trial_warnings)
    values = dict.fromkeys([*METRICS, "cost/flops", "cost/parameters"], 0.5)
    state.start(1, baseline=None, sampled={"loss.temperature": 1.5}, config_hash="")
    state.report(1, {"epoch": 1.0, "epochs": 1.0} | values)
    state.end(1, "finished")
    console = Console(file=io.StringIO(), width=200)
    tracker: Any = SimpleNamespace(trouble="away", refused=[], pages=None)
    print_summary(console, state, SessionOutcome("interrupted"), tracker, 7)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert f"Pareto front:   {tmp_path}/s/pareto (settings and student of each trial)" in lines
    assert f"to resume:      ensdistill-tune resume s --studies-dir {tmp_path}" in lines
    assert lines[-2] == "7 events still pending for MLflow at sqlite:///x (away)"
    assert lines[-1] == (f"nothing is lost; to send later: ensdistill-tune sync s --studies-dir {tmp_path}")


def test_without_a_feasible_candidate_nothing_is_exported_and_the_test_set_is_not_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = {"constraints": {"val/ece": {"at_most": 0.1}}, "confirmation": {"top_k": 1, "seeds": 2}}
    study = StudyConfig.model_validate(STUDY.model_dump(exclude_unset=True) | bound)
    (tmp_path / "s" / "best").mkdir(parents=True)  # from an earlier session with other constraints
    state = StudyState(study, StudyDirectory(tmp_path / "s"), {"teachers": {}, "tracking_uri": "x"}, trial_warnings)
    for number, more in ((1, {}), (2, {"replicate_of": 1, "seed": 1}), (3, {"replicate_of": 1, "seed": 2})):
        ece = 0.05 if number == 1 else 0.3  # the search score was too optimistic
        state.start(number, baseline=None, sampled={"loss.temperature": 1.5}, config_hash="", **more)
        state.report(number, {"epoch": 1.0, "epochs": 1.0} | dict.fromkeys(METRICS, 0.5) | {"val/ece": ece})
        state.end(number, "finished")
    assert state.best is state.trials[1]
    monkeypatch.setattr(phases, "evaluate_on_test", None)
    context: Any = SimpleNamespace(state=state, inputs=SimpleNamespace(metrics={}), reevaluate_test=False)
    outcome = phases.confirm(context, SessionOutcome("finished"))
    for phase in (phases.ship, phases.test, phases.diagnose):
        outcome = phase(context, outcome)
    assert state.best is None
    assert not (tmp_path / "s" / "best").exists()
    kept = json.loads((tmp_path / "s" / "confirmation.json").read_text())
    assert kept["candidates"][0]["broken_constraints"] == ["val/ece 0.3, at most 0.1"]
    assert kept["verdict"].endswith("so none wins; the closest is 001 (val/ece 0.3, at most 0.1)")
    console = Console(file=io.StringIO(), width=300)
    tracker: Any = SimpleNamespace(trouble=None, refused=[], pages=None)
    print_summary(console, state, outcome, tracker, 0)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"verdict: {kept['verdict']} " in " ".join(shown.split())
    assert "no student:     see the verdict\n" in shown


def test_a_study_whose_trials_all_violate_a_constraint_does_not_count_as_failed(tmp_path: Path) -> None:
    bound = {"constraints": {"val/ece": {"at_most": 0.1}}, "confirmation": {"top_k": 0}}
    study = StudyConfig.model_validate(STUDY.model_dump(exclude_unset=True) | bound)
    state = StudyState(study, StudyDirectory(tmp_path), {}, trial_warnings)
    state.start(1, baseline=None, sampled={"loss.temperature": 1.5}, config_hash="")
    state.report(1, {"epoch": 1.0, "epochs": 1.0} | dict.fromkeys(METRICS, 0.5))
    state.end(1, "finished")
    context: Any = SimpleNamespace(
        state=state,
        inputs=SimpleNamespace(data=None, ensemble=None, metrics={"curve": []}),
        observer=ConsoleObserver(Console(file=io.StringIO()), study),
        executor=SimpleNamespace(run_trials=lambda *_: "finished"),
    )
    assert phases.search(context, SessionOutcome()).ended == "finished"
    assert state.best is None
