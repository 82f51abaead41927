"""Renders a snapshot of a study for a terminal."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ensdistill.runtime.formatting import mean_and_spread, percent
from ensdistill.runtime.text import printable_lines
from ensdistill_tune.console.remaining import estimate_remaining
from ensdistill_tune.console.snapshot import OPEN, StudySnapshot, epoch_of
from ensdistill_tune.formatting import duration
from ensdistill_tune.records.events import State
from ensdistill_tune.records.trial_progress import TrialProgress
from ensdistill_tune.records.trial_record import OVER, UNDER_WAY, TrialRecord

ROWS = 8  # maximum number of open trials that are shown
LABEL, BAR, SMALL = 10, 12, 6  # widths in characters: label, bar of a phase, bar of a trial
STYLES: dict[State, str] = {"failed": "red", "pruned": "dim", "interrupted": "dim"}
WORDS = {
    "crashed": "crashed (no process is running it)",
    "timed_out": "out of time (budget.minutes)",
    "training_teachers": "training teachers",
}


@dataclass(frozen=True)
class StudyPanel:
    """The status panel of a study, with at most 24 lines that fit the terminal width. Color is never the only cue.

    Attributes:
        snapshot: The snapshot that is rendered.
    """

    snapshot: StudySnapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the lines."""
        now, width, marks = self.snapshot, options.max_width, "#." if options.ascii_only else "━─"
        yield Text(_headline(now), "bold", no_wrap=True, overflow="crop")
        for line in (*_facts(now, marks), *_best_trials(now, width), *_trial_rows(now, width, marks)):
            line.no_wrap, line.overflow = True, "crop"
            yield line
        if now.state in ("crashed", "interrupted", "timed_out") and now.resume:
            more = f" --set budget.minutes={2 * (now.study.budget.minutes or 0):g}"
            yield Text(f"to resume: {now.resume}{more if now.state == 'timed_out' else ''}", overflow="fold")


def _headline(now: StudySnapshot) -> str:
    took, state, seconds = timedelta(seconds=int(now.seconds)), WORDS.get(now.state, now.state), estimate_remaining(now)
    if now.state not in UNDER_WAY:
        return f"{now.name}: {state} after {took}"
    left = "" if seconds is None else f", about {duration(round(seconds))} left"
    return f"{now.name}: {state}" + (f", {took} so far{left}" if now.seconds else "")


def _facts(now: StudySnapshot, marks: str) -> Iterator[Text]:
    """Yields lines with the number of ended trials and the current rates."""
    yield _fact("search", *_progress(now.primary_trials, now.study.num_trials, marks))
    if now.replicates or now.state == "confirming":
        yield _fact("confirm", *_progress(now.replicates, now.replicates_expected, marks))
    if (any(now.paces) or now.progress) and now.state in UNDER_WAY:
        images = sum(progress.images_per_second for progress in now.progress.values())
        words = [*map(_often, now.paces, ("trials", "epochs"), (60, 1)), f"{images:,.0f} images/s" if images else ""]
        yield _fact("rate", ", ".join(filter(None, words)))


def _best_trials(now: StudySnapshot, width: int) -> Iterator[Text]:
    """Yields one line each for the best search trial, the best baseline and the winner; the best of these is bold."""
    objective = now.study.objective
    order = now.study.rank(now.primary_trials)
    firsts = {"baseline" if trial.baseline else "best": trial for trial in reversed(order)}
    rows = [(label, t, f"{t.last[objective]:.4f}") for label, t in sorted(firsts.items(), reverse=True)]
    first = next(iter(now.study.feasible(order)), None)
    if now.state == "finished" and now.replicates:
        first = next((trial for trial in order if trial.number == now.winner), None)
    if first and first.number == now.winner:
        own = [one for one in now.replicates if one.replicate_of == now.winner and one.state == "finished"]
        values = [one.last[objective] for one in own]
        rows.append(("winner", first, f"{mean_and_spread(values)} ({len(values)} seeds)"))
    for label, trial, value in rows:
        words = f"{label:{LABEL}}{objective} {value}  "
        words += "breaks a constraint  " if label != "winner" and now.study.violation(trial.last) else ""
        yield Text(words + _fitted(trial.name, width - len(words)), "bold" if trial is first else "")


def _trial_rows(now: StudySnapshot, width: int, marks: str) -> Iterator[Text]:
    """Yields the lines of a table that lists the open trials and the most recently ended trials."""
    shown = [*now.open[:ROWS], *now.ended]
    if not shown:
        return
    label = now.study.objective.removeprefix("val/")
    states, epochs = max(len(trial.state) for trial in shown), 2 * len(str(now.epochs)) + 1
    values = max(6, len(label))
    notes = [_within_epoch(now.progress.get(trial.number)) for trial in shown]
    room = max(10, width - states - SMALL - epochs - values - 6 - max(map(len, notes)))
    names = [
        _fitted(printable_lines(f"{t.number:03d} {t.error}") if t.state == "failed" else t.name, room) for t in shown
    ]
    room = max(map(len, names))
    yield Text(f"\n{'':{states}} {'trial':{room}}  {'epoch':>{SMALL + epochs + 1}}  {label:>{values}}", "dim")
    for n, (trial, name, note) in enumerate(zip(shown, names, notes, strict=True)):
        if n == ROWS < len(now.open):
            yield Text(f"... and {len(now.open) - ROWS} more")
        value = f"{trial.last[now.study.objective]:.4f}" if now.study.objective in trial.last else ""
        yield Text.assemble(
            f"{trial.state:{states}} {name:{room}}  ",
            _bar(epoch_of(trial), now.epochs, SMALL, marks),
            f"  {value:>{values}}{note}",
            style=STYLES.get(trial.state, ""),
        )


def _label(trial: TrialRecord) -> str:
    """Returns the name of a trial, or the error if it has failed, without terminal control characters."""
    return printable_lines(f"{trial.number:03d} {trial.error}") if trial.state == "failed" else trial.name


def _within_epoch(progress: TrialProgress | None) -> str:
    """Returns the progress, the loss and the rate of a trial in its current epoch; empty if they are not known."""
    if progress is None:
        return ""
    loss = "" if progress.loss is None else f", loss {progress.loss:.4g}"
    return f"  {percent(progress.share)} of epoch {progress.epoch}{loss}, {progress.images_per_second:,.0f} images/s"


def _progress(trials: Sequence[TrialRecord], total: int, marks: str) -> tuple[Text, str]:
    counts = Counter(trial.state for trial in trials)
    words = "  " + ", ".join(f"{counts[state]} {state}" for state in (*OVER, *OPEN) if counts[state])
    return _bar(sum(counts[state] for state in OVER), total, BAR, marks), words


def _fact(label: str, *parts: str | Text) -> Text:
    return Text.assemble(f"{label:{LABEL - 1}} ", *parts)


def _bar(done: int, of: int, width: int, marks: str) -> Text:
    full = width * min(done, of) // of if of else 0
    return Text.assemble((marks[0] * full, "cyan"), (marks[1] * (width - full), "dim"), f" {done:{len(str(of))}}/{of}")


def _often(pace: float | None, what: str, least: int) -> str:
    """Returns a rate in words, such as `12.1 epochs a second`; empty if it is not known.

    Args:
        pace: Rate in events per second.
        what: Name of the events, in the plural.
        least: Shortest allowed unit of time in seconds. A longer unit is used if the rate is below one event per
            unit.
    """
    if not pace:
        return ""
    units = {1: "second", 60: "minute", 3600: "hour"}
    seconds = next((u for u in units if u >= least and pace * u >= 1), 3600)
    return f"{pace * seconds:.1f} {what} a {units[seconds]}"


def _fitted(text: str, width: int) -> str:
    """Returns as many complete words as fit; no word is cut, because a truncated number would be a different number."""
    return textwrap.shorten(text, max(width, 4), placeholder=" ...")
