"""Output at the end of a session: results, file paths, and commands to continue."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from ensdistill.evaluation.tables import teacher_rows
from ensdistill.runtime.command_line import STUDIES, Option, command_line
from ensdistill.runtime.progress_bar import show_warnings
from ensdistill.runtime.text import counted
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill_tune.analysis.labels import labeled
from ensdistill_tune.analysis.outcome import SessionOutcome
from ensdistill_tune.analysis.verdict import dropped_in_words, verdict, why_none_wins
from ensdistill_tune.console.tables import OVER_SEEDS, leaderboard_table, seeds_table, shown_metrics
from ensdistill_tune.formatting import WIDTH, fold
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import TestEvaluated
from ensdistill_tune.records.trial_record import of_kind
from ensdistill_tune.study.study_state import StudyState
from ensdistill_tune.tracking.run_fields import address_of
from ensdistill_tune.tracking.tracker import MlflowTracker

UI_ADDRESS = "http://127.0.0.1:5000"
ENDED = {"interrupted": "INTERRUPTED: ", "timed_out": "out of time (budget.minutes): "}  # start of the line


def print_summary(
    console: Console, state: StudyState, outcome: SessionOutcome, tracker: MlflowTracker, unsent: int
) -> None:
    """Prints warnings, leaderboard, confirmation, test metrics, file paths, and commands to continue.

    Args:
        console: Console of the session.
        state: State of the study.
        outcome: Results of the session.
        tracker: Tracker of the study.
        unsent: Number of events that are still pending for MLflow.
    """
    show_warnings(state.trial_warnings)
    _print(console, leaderboard_table(state.study, state.primary_trials, teacher_rows(state.header["teachers"])))
    _print_confirmation(console, state, outcome)
    _print_test(console, state, outcome)
    lines = [*_lines_of_files(state, outcome), *_lines_to_continue(state, outcome.ended)]
    console.print("\n".join([*lines, *_lines_of_mlflow(state, tracker, unsent)]), soft_wrap=True)


def study_command(state: StudyState, name: str, *options: Option) -> str:
    """Returns a command of `ensdistill-tune` for this study, quoted for a shell."""
    home = state.folder.path
    return command_line("ensdistill-tune", name, home.name, options=options, studies=home.parent)


def _print(console: Console, table: Table) -> None:
    """Prints a table and an empty line."""
    console.print(table, width=min(console.width, WIDTH))
    console.print()


def _print_confirmation(console: Console, state: StudyState, outcome: SessionOutcome) -> None:
    study, confirmed = state.study, outcome.confirmed
    if confirmed:
        rows = {c.label: [replicate.last for replicate in c.replicates] for c in confirmed}
        title = "confirmation (validation, fresh seeds)"
        _print(console, seeds_table(title, rows, shown_metrics(study, OVER_SEEDS), "trial"))
        for c in confirmed:
            if dropped := dropped_in_words(c, confirmed):
                console.print(f"{c.label}: {dropped}")
        console.print(fold(f"verdict: {verdict(confirmed, study)}", len("verdict: ")), soft_wrap=True)
    elif outcome.ended == "finished" and study.confirmation.top_k:
        console.print(
            "no candidate could be confirmed: each has a failed replicate\nthe result is the best trial of the search"
        )


def _print_test(console: Console, state: StudyState, outcome: SessionOutcome) -> None:
    if outcome.tested:
        count = sum(isinstance(event, TestEvaluated) for event in read_journal(state.folder.journal))
        title = "test set, evaluated once" if count == 1 else f"test set, evaluated {count} times"
        on_test = labeled(outcome.tested, state.primary_trials, len(state.header["teachers"].get("members", ())))
        shown = shown_metrics(state.study, OVER_SEEDS)
        names = [name.removeprefix("val/") for name in shown if name.startswith("val/")]
        _print(console, seeds_table(title, on_test, names, "trial"))
    elif outcome.confirmed and state.winner:
        console.print(
            "the test set was already evaluated for other students; another evaluation would make it a\n"
            f"second validation set. To evaluate it anyway: {study_command(state, 'resume')} --reevaluate-test",
            soft_wrap=True,
        )


def _lines_of_files(state: StudyState, outcome: SessionOutcome) -> Iterator[str]:
    summary, home = state.summary(outcome.ended), state.folder.path
    states = ", ".join(f"{count} {word}" for word, count in sorted(summary["counts"].items()))
    done = f"{len(state.primary_trials)} of {state.num_trials} trials ({states}) in {summary['seconds']:.0f} s"
    done += f" ({state.hours} of trials)" if str(state.hours) else ""
    yield f"{ENDED.get(outcome.ended, '')}{done}"
    if (home / "report.html").exists():
        yield f"report:         {home / 'report.html'}"
    if state.best:
        if state.study.secondary_objectives:
            yield f"Pareto front:   {home / 'pareto'} (settings and student of each trial)"
        yield f"best settings:  {home / 'best' / 'config.yaml'}"
        yield f"best student:   {home / 'best' / STUDENT_FILE}"
    elif why := why_none_wins(state.study.rank(state.primary_trials), outcome.confirmed, state.study):
        yield fold(f"no student:     {'see the verdict' if outcome.confirmed else why}", len("no student:     "))
    else:
        why = "" if outcome.ended in ("interrupted", "timed_out") else "; leaderboard.csv lists the errors"
        yield f"no trial completed; there is no best trial{why}"
    yield f"all trials:     {home / 'leaderboard.csv'}"


def _lines_to_continue(state: StudyState, ended: str) -> Iterator[str]:
    if ended == "interrupted":
        yield f"to resume:      {study_command(state, 'resume')}"
    if ended == "timed_out":
        minutes = ("--set", f"budget.minutes={2 * (state.study.budget.minutes or 0):g}")
        searched = len(of_kind(state.trials.values(), "search"))
        yield f"to resume:      {study_command(state, 'resume', minutes)}"
        trials = ("--set", f"budget.trials={searched}")
        yield f"or to confirm:  {study_command(state, 'resume', minutes, trials)}"


def _lines_of_mlflow(state: StudyState, tracker: MlflowTracker, unsent: int) -> Iterator[str]:
    uri, pages = state.header["tracking_uri"], tracker.pages
    if unsent:
        yield (
            f"{counted(unsent, 'event')} still pending for MLflow at {uri} ({tracker.trouble or 'no answer'})\n"
            f"nothing is lost; to send later: {study_command(state, 'sync')}"
        )
    elif tracker.refused:
        yield f"MLflow refused {counted(len(tracker.refused), 'entry')}: {tracker.refused[0]}"
    elif pages and uri.startswith("http"):
        yield f"MLflow:         {pages.comparison(address_of(uri))}"
    elif pages:
        elsewhere = state.study.tracking.uri or str(state.folder.path.parent) != STUDIES
        yield f"MLflow:         {pages.comparison(UI_ADDRESS)}"
        ui = f"`{study_command(state, 'ui')}`" if elsewhere else "`make ui`"
        yield f"                (while {ui} runs)"
