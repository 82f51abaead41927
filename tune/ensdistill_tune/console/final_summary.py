"""What a terminal shows at the end of a session: results, where the files are, and how to continue."""

from collections.abc import Iterator

from rich.console import Console

from ensdistill.evaluation.tables import teacher_rows
from ensdistill.pipeline import show_warnings
from ensdistill.runtime.command_line import STUDIES, Option, command_line
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill_tune.analysis.labels import labeled
from ensdistill_tune.analysis.leaderboard import leaderboard, seeds_table
from ensdistill_tune.analysis.outcome import SessionOutcome
from ensdistill_tune.analysis.replication import verdict, why_none_wins
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import TestEvaluated
from ensdistill_tune.records.trial_record import of_kind
from ensdistill_tune.study.study_state import StudyState
from ensdistill_tune.tracking.run_fields import address_of
from ensdistill_tune.tracking.tracker import MlflowTracker

UI_ADDRESS = "http://127.0.0.1:5000"
CAPITALS = {"interrupted": "INTERRUPTED: ", "timed_out": "out of time (budget.minutes): "}  # before the first line


def print_summary(
    console: Console, state: StudyState, outcome: SessionOutcome, tracker: MlflowTracker, unsent: int
) -> None:
    """Prints warnings, leaderboard, confirmation, test metrics, the places of files, and commands to continue.

    Args:
        console: Where it is printed.
        state: The study.
        outcome: What the session brought.
        tracker: The MLflow side of the study.
        unsent: Number of events that MLflow has not taken yet.
    """
    show_warnings(state.trial_warnings)
    console.print(leaderboard(state.study, state.primary_trials, teacher_rows(state.header["teachers"])))
    _print_confirmation(console, state, outcome)
    _print_test(console, state, outcome)
    lines = [*_lines_of_files(state, outcome), *_lines_to_continue(state, outcome.ended)]
    console.print("\n".join([*lines, *_lines_of_mlflow(state, tracker, unsent)]), soft_wrap=True)


def study_command(state: StudyState, name: str, *options: Option) -> str:
    """Returns a command of `ensdistill-tune` about this study, which can be pasted into a shell."""
    home = state.folder.path
    return command_line("ensdistill-tune", name, home.name, options=options, studies=home.parent)


def _print_confirmation(console: Console, state: StudyState, outcome: SessionOutcome) -> None:
    study, confirmed = state.study, outcome.confirmed
    if confirmed:
        rows = {c.label: [replicate.last for replicate in c.replicates] for c in confirmed}
        title = f"confirmation (validation, {study.confirmation.seeds} fresh seeds)"
        console.print(seeds_table(title, rows, study.display_metrics, "trial"))
        console.print(f"verdict: {verdict(confirmed, study)}", soft_wrap=True)
    elif outcome.ended == "finished" and study.confirmation.top_k:
        console.print(
            "nothing could be confirmed: of every candidate a repeat failed; the best is that of the search alone"
        )


def _print_test(console: Console, state: StudyState, outcome: SessionOutcome) -> None:
    if outcome.tested:
        looks = sum(isinstance(event, TestEvaluated) for event in read_journal(state.folder.journal))
        title = "test images, looked at once" if looks == 1 else f"test images, looked at {looks} times"
        on_test = labeled(outcome.tested, state.primary_trials, len(state.header["teachers"].get("members", ())))
        names = [name.split("/")[1] for name in state.study.display_metrics if name.startswith("val/")]
        console.print(seeds_table(title, on_test, names, ""))
    elif outcome.confirmed and state.winner:
        console.print(
            "the test images were looked at before, for other students: a second look would make them a second "
            f"validation set. `{study_command(state, 'resume')} --reevaluate-test` looks all the same",
            soft_wrap=True,
        )


def _lines_of_files(state: StudyState, outcome: SessionOutcome) -> Iterator[str]:
    summary, home = state.summary(outcome.ended), state.folder.path
    states = ", ".join(f"{count} {word}" for word, count in sorted(summary["counts"].items()))
    done = f"{len(state.primary_trials)} of {state.num_trials} trials ({states}) in {summary['seconds']:.0f} s"
    done += f" ({state.hours} of trials)" if str(state.hours) else ""
    yield f"{CAPITALS.get(outcome.ended, '')}{done}"
    if (home / "report.html").exists():
        yield f"what it means:  {home / 'report.html'}"
    if state.best:
        if state.study.secondary_objectives:
            yield f"Pareto front:   {home / 'pareto'} (settings and student of each trial)"
        yield f"best settings:  {home / 'best' / 'config.yaml'}"
        yield f"best student:   {home / 'best' / STUDENT_FILE}"
    elif why := why_none_wins(state.study.rank(state.primary_trials), outcome.confirmed, state.study):
        yield f"nothing ships:  {'see the verdict' if outcome.confirmed else why}"
    else:
        why = "" if outcome.ended in ("interrupted", "timed_out") else "; leaderboard.csv says why"
        yield f"no trial has run to its end, so there is no best one{why}"
    yield f"all trials:     {home / 'leaderboard.csv'}"


def _lines_to_continue(state: StudyState, ended: str) -> Iterator[str]:
    if ended == "interrupted":
        yield f"to go on:       {study_command(state, 'resume')}"
    if ended == "timed_out":
        minutes = ("--set", f"budget.minutes={2 * (state.study.budget.minutes or 0):g}")
        searched = len(of_kind(state.trials.values(), "search"))
        yield f"to go on:       {study_command(state, 'resume', minutes)}"
        trials = ("--set", f"budget.trials={searched}")
        yield f"or to confirm:  {study_command(state, 'resume', minutes, trials)}"


def _lines_of_mlflow(state: StudyState, tracker: MlflowTracker, unsent: int) -> Iterator[str]:
    uri, pages = state.header["tracking_uri"], tracker.pages
    if unsent:
        yield (
            f"MLflow at {uri} has not taken {unsent} events yet ({tracker.trouble or 'no answer'}); "
            f"nothing is lost: `{study_command(state, 'sync')}` sends them"
        )
    elif tracker.refused:
        yield f"MLflow refused {len(tracker.refused)} entries: {tracker.refused[0]}"
    elif pages and uri.startswith("http"):
        yield f"compare them:   {pages.comparison(address_of(uri))}"
    elif pages:
        elsewhere = state.study.tracking.uri or str(state.folder.path.parent) != STUDIES
        yield f"compare them:   {pages.comparison(UI_ADDRESS)}"
        ui = f"`{study_command(state, 'ui')}`" if elsewhere else "`make ui`"
        yield f"                (after {ui})"
