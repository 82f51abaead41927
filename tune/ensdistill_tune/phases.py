"""Phases of a prepared session: begin, search, confirm, ship, test, diagnose, finish."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ensdistill.errors import DataError, MachineError
from ensdistill.evaluation.tables import summarize_teachers, teacher_rows
from ensdistill.runtime.files import write_json
from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.analysis.outcome import SessionOutcome
from ensdistill_tune.analysis.replication import winner_of
from ensdistill_tune.analysis.test_evaluation import (
    confirmation_metrics,
    diagnostics_on_validation,
    evaluate_on_test,
    write_confirmation,
)
from ensdistill_tune.artifacts import names_within, write_artifacts
from ensdistill_tune.console.final_summary import print_summary, study_command
from ensdistill_tune.console.live import ConsoleObserver, live
from ensdistill_tune.execution.executor import Executor
from ensdistill_tune.execution.study_inputs import StudyInputs
from ensdistill_tune.records.events import SessionEnded, SessionStarted, TeachersReady, TestEvaluated, TrialEnded
from ensdistill_tune.study.study_state import StudyState
from ensdistill_tune.tracking.tracker import MlflowTracker

HASHES = ("study_hash", "data_hash", "ensemble_hash", "git_commit")


@dataclass(frozen=True)
class SessionContext:
    """Objects that all phases share.

    Attributes:
        state: State of the study.
        inputs: Data and teachers.
        executor: Executor that runs the trials.
        tracker: Tracker that observes the event log and logs the study to MLflow.
        observer: Observer that prints a line for each trial.
        reevaluate_test: Whether the test set is evaluated again if it was already evaluated for other students.
    """

    state: StudyState
    inputs: StudyInputs
    executor: Executor
    tracker: MlflowTracker
    observer: ConsoleObserver
    reevaluate_test: bool = False


Phase = Callable[[SessionContext, SessionOutcome], SessionOutcome]


def begin(context: SessionContext) -> None:
    """Records the start of a session and, in the first session, the teachers.

    Args:
        context: Objects of the session.
    """
    state, header = context.state, context.inputs.header
    state.append_event(SessionStarted(versions=header["versions"]))
    if not any(isinstance(event, TeachersReady) for event in state.past):
        hashes = {name: str(header[name]) for name in HASHES if header[name]}
        known = summarize_teachers(context.inputs.metrics)
        rows = {"ensemble": known.ensemble, "teacher_mean": known.mean} if known else {}
        state.append_event(TeachersReady.model_validate({**rows, "hashes": hashes}))
    state.save("running")


def search(context: SessionContext, outcome: SessionOutcome) -> SessionOutcome:
    """Runs all remaining trials, including replicates. If no trial completes, the study fails."""
    state, inputs = context.state, context.inputs
    with live(context.observer, state):
        ended = context.executor.run_trials(state, inputs.data, inputs.ensemble, inputs.metrics["curve"])
    nothing = not state.study.rank(state.primary_trials)
    return replace(outcome, ended="failed" if ended == "finished" and nothing else ended)


def confirm(context: SessionContext, outcome: SessionOutcome) -> SessionOutcome:
    """Ranks the candidates after the confirmation, and selects the best replicate of the winner for export.

    No student is exported if the mean metrics of every candidate violate a constraint.
    """
    if outcome.ended != "finished":
        return outcome
    state, study = context.state, context.state.study
    confirmation = confirmation_of(state.primary_trials, state.replicates, study)
    order = confirmation.candidates
    if winner := winner_of(order, study):
        state.winner = winner.best(study)
    state.none_confirmed = bool(order) and winner is None
    return replace(outcome, confirmed=order, stages=confirmation.stages)


def ship(context: SessionContext, outcome: SessionOutcome) -> SessionOutcome:
    """Writes the leaderboard, and the settings and student of the best trial."""
    files = write_artifacts(context.state, teacher_rows(context.inputs.metrics), outcome.confirmed)
    return replace(outcome, files=(*outcome.files, *files))


def test(context: SessionContext, outcome: SessionOutcome) -> SessionOutcome:
    """Evaluates the confirmed candidates on the test set, and writes confirmation.json.

    If there is no winner, the test set is not evaluated.
    """
    if not outcome.confirmed:
        return outcome
    state, inputs = context.state, context.inputs
    evaluated = (
        evaluate_on_test(
            state, outcome.confirmed, inputs.data, inputs.ensemble, reevaluate_test=context.reevaluate_test
        )
        if state.winner
        else None
    )
    tested = evaluated.results if evaluated else []
    earlier = [] if tested else [event.results for event in state.past if isinstance(event, TestEvaluated)]
    file = write_confirmation(state.folder.path, state.study, outcome, tested, earlier)
    diagnostics = evaluated.diagnostics if evaluated else None
    return replace(outcome, tested=tested, diagnostics=diagnostics, files=(*outcome.files, file))


def diagnose(context: SessionContext, outcome: SessionOutcome) -> SessionOutcome:
    """Writes diagnostics.json for the figures, from the validation images if the test set was not evaluated."""
    state, inputs, home = context.state, context.inputs, context.state.folder.path
    if state.best and (outcome.confirmed or not (home / "confirmation.json").exists()):
        diagnostics = outcome.diagnostics or diagnostics_on_validation(
            state, outcome.confirmed, inputs.data, inputs.ensemble
        )
        write_json(home / "diagnostics.json", diagnostics.model_dump())
    return outcome


def finish(context: SessionContext, outcome: SessionOutcome) -> int:
    """Ends the session: writes study.json, the report and the last event.

    Args:
        context: Objects of the session.
        outcome: Results of the phases.

    Returns:
        The number of events that are pending for MLflow.
    """
    state = context.state
    for trial in state.running:  # a trial is still running here only after an internal error
        state.append_event(TrialEnded(trial=trial.number, state="interrupted"))
    state.save(outcome.ended)
    report, lead = _write_report(context, outcome.ended)
    state.append_event(_session_ended(state, outcome, lead, report))
    return context.tracker.close()


def _session_ended(state: StudyState, outcome: SessionOutcome, note: str, report: Sequence[Path]) -> SessionEnded:
    """Returns the last event. Metrics that an earlier session logged to MLflow are omitted."""
    last = state.best.last if state.best and outcome.ended != "interrupted" else {}
    metrics = {f"best/{name.removeprefix('val/')}": value for name, value in last.items() if "val/" in name}
    winner = winner_of(outcome.confirmed, state.study)
    metrics |= confirmation_metrics(winner, state.study) if winner else {}
    by_trial = {c.trial.number: confirmation_metrics(c, state.study) for c in outcome.confirmed}
    before = [event for event in state.past if isinstance(event, SessionEnded)]
    return SessionEnded(
        state=outcome.ended,
        metrics={} if metrics in [event.metrics for event in before] else metrics,
        confirmed={} if by_trial in [event.confirmed for event in before] else by_trial,
        best=state.best.number if state.best else None,
        note=note,
        files=names_within(state.folder.path, [*outcome.files, *report]),
    )


def _write_report(context: SessionContext, ended: str) -> tuple[list[Path], str]:
    """Writes the report and returns its files and its summary; after an interruption, returns only the summary."""
    home = context.state.folder.path
    try:
        if ended == "interrupted":
            from ensdistill_tune.analysis.results import read_facts
            from ensdistill_tune.report.document import first_lines

            return [], first_lines(read_facts(home), [], [])
        from ensdistill_tune.report.html import write_report  # imported here, because it is slow

        return write_report(home)
    except Exception as error:  # an error in the report must not discard the results
        why, again = f"{type(error).__name__}: {error}", study_command(context.state, "report")
        context.observer.console.print(f"writing the report failed ({why}); to try again: `{again}`")
        return [], ""


def _finish_after(error: BaseException, context: SessionContext, outcome: SessionOutcome) -> None:
    """Ends the session after an error. If the disk is full, the end cannot be recorded; `resume` handles this case."""
    try:
        finish(context, outcome)
    except DataError:
        context.tracker.close()
        if not isinstance(error, DataError):
            raise


PHASES: tuple[Phase, ...] = (search, confirm, ship, test, diagnose)


def run_phases(context: SessionContext) -> str:
    """Runs the phases of a prepared session; `finish` also runs after an error.

    Args:
        context: Objects of the session.

    Returns:
        `finished`, `timed_out`, `interrupted` or `failed`.

    Raises:
        MachineError: A disk is full, or a machine differs from the other machines. The study can be resumed.
    """
    begin(context)
    outcome = SessionOutcome(files=(Path("study.json"),))
    try:
        for phase in PHASES:
            outcome = phase(context, outcome)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit | MachineError)
        _finish_after(error, context, replace(outcome, ended="interrupted" if interrupted else "failed"))
        if isinstance(error, MachineError):
            raise MachineError(f"{error}. Then `{study_command(context.state, 'resume')}` continues.") from error
        raise
    unsent = finish(context, outcome)
    print_summary(context.observer.console, context.state, outcome, context.tracker, unsent)
    return outcome.ended
