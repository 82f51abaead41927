"""The picture of a study at one moment: how far it is, how fast it goes, what is best, and what runs."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import fmean

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ensdistill.runtime.formatting import mean_and_spread
from ensdistill_tune.analysis.replication import candidates
from ensdistill_tune.formatting import duration
from ensdistill_tune.records.events import State
from ensdistill_tune.records.trial_record import OVER, UNDER_WAY, TrialRecord, rank_trials
from ensdistill_tune.search.pbt import Pbt
from ensdistill_tune.study.study_config import StudyConfig

OPEN: tuple[State, ...] = ("running", "interrupted")  # and of one that does, or may
ROWS = 8  # of open trials, at most
LABEL, BAR, SMALL = 10, 12, 6  # characters
STYLES: dict[State, str] = {"failed": "red", "pruned": "dim", "interrupted": "dim"}
WORDS = {
    "crashed": "crashed (no process is running it)",
    "timed_out": "out of time (budget.minutes)",
    "training_teachers": "training teachers",
}


@dataclass(frozen=True)
class StudySnapshot:
    """All that is shown, and what follows from it. It renders itself: at most 22 lines, each within the width."""

    name: str
    study: StudyConfig
    epochs: int  # of a whole trial
    state: str
    seconds: float  # for which the study has been worked at
    trials: Sequence[TrialRecord]
    planned: int  # repeats; 0 as long as that is not settled
    paces: tuple[float | None, float | None]  # trials and epochs per second, lately; None before there is a basis
    ended: Sequence[TrialRecord] = ()  # who ended last, if they are to be shown besides
    resume: str | None = None  # the command that goes on with the study

    # --- what follows ---

    @property
    def primary_trials(self) -> list[TrialRecord]:
        """The trials of the search, baselines included."""
        return [trial for trial in self.trials if trial.replicate_of is None]

    @property
    def replicates(self) -> list[TrialRecord]:
        """The trials of the confirmation."""
        return [trial for trial in self.trials if trial.replicate_of is not None]

    @property
    def open(self) -> list[TrialRecord]:
        """The trials that run, then those that wait to go on."""
        return sorted((t for t in self.trials if t.state in OPEN), key=lambda t: (OPEN.index(t.state), t.number))

    @property
    def seconds_left(self) -> float | None:
        """The epochs to come at the pace of late, but no more than `budget.minutes` leaves; None without a basis."""
        pace, minutes = self.paces[1], self.study.budget.minutes
        if self.state not in UNDER_WAY or not pace:
            return None
        left = self.epochs_left / pace
        return left if minutes is None else max(0.0, min(left, 60 * minutes - self.seconds))

    @property
    def epochs_left(self) -> float:
        """The epochs to come."""
        left = sum(self.epochs - epoch_of(trial) for trial in self.open if trial.kind != "search")
        left += self.epochs * max(0, self._repeats - len(self.replicates))
        if self.state == "confirming":
            return left
        begun = sum(trial.baseline is not None for trial in self.primary_trials)
        return left + self.epochs * (len(self.study.baselines) - begun) + max(0.0, self._search_left)

    @property
    def _search_left(self) -> float:
        """Those of searched trials, which are taken to train as long as those before them, pruned ones included."""
        own, budget = [trial for trial in self.trials if trial.kind == "search"], self.study.budget
        trained = [epoch_of(trial) - _begins_after(trial) for trial in own]
        if isinstance(self.study.scheduler, Pbt):  # somebody takes the place of whoever gives up
            return self.study.scheduler.population * self.epochs - sum(trained)
        over = [epochs for epochs, trial in zip(trained, own, strict=True) if trial.state in OVER]
        share = fmean(over) / self.epochs if over else 1.0
        more = (budget.trials - len(own)) * self.epochs * share
        if budget.epochs is not None:
            more = min(more, budget.epochs - sum(trained))
        return (
            max(0.0, more) + sum(self.epochs - epoch_of(trial) for trial in self.open if trial.kind == "search") * share
        )

    @property
    def _repeats(self) -> int:
        return self.planned or self.study.expected_replicates

    # --- how it looks ---

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lines of text; no color says anything that words do not."""
        marks = "#." if options.ascii_only else "━─"
        yield Text(self._headline, "bold", no_wrap=True, overflow="crop")
        for line in (*self._facts(options.max_width, marks), *self._rows(options.max_width, marks)):
            line.no_wrap, line.overflow = True, "crop"
            yield line
        if self.state in ("crashed", "interrupted", "timed_out") and self.resume:
            more = f" --set budget.minutes={2 * (self.study.budget.minutes or 0):g}"
            yield Text(f"to go on: {self.resume}{more if self.state == 'timed_out' else ''}", overflow="fold")

    @property
    def _headline(self) -> str:
        took, state = timedelta(seconds=int(self.seconds)), WORDS.get(self.state, self.state)
        if self.state not in UNDER_WAY:
            return f"{self.name}: {state} after {took}"
        left = "" if self.seconds_left is None else f", about {duration(round(self.seconds_left))} left"
        return f"{self.name}: {state}" + (f", {took} so far{left}" if self.seconds else "")

    def _facts(self, width: int, marks: str) -> Iterator[Text]:
        yield _fact(
            "search", _bar(_over(self.primary_trials), self.study.num_trials, BAR, marks), _counts(self.primary_trials)
        )
        if self.replicates or self.state == "confirming":
            yield _fact(
                "confirmation", _bar(_over(self.replicates), self._repeats, BAR, marks), _counts(self.replicates)
            )
        if any(self.paces) and self.state in UNDER_WAY:
            words = map(_often, self.paces, ("trials", "epochs"), (60, 1))
            yield _fact("rate", ", ".join(filter(None, words)))
        yield from self._best(width)

    def _best(self, width: int) -> Iterator[Text]:
        """The best searched trial beside the best baseline, and at the end who was confirmed; the best of all bold."""
        objective, mode = self.study.objective, self.study.mode
        order = rank_trials(self.primary_trials, objective, mode)
        firsts = {"baseline" if trial.baseline else "best": trial for trial in reversed(order)}
        rows = [(label, t, f"{t.last[objective]:.4f}") for label, t in sorted(firsts.items(), reverse=True)]
        first = order[0] if order else None
        if self.state == "finished" and (confirmed := candidates(self.primary_trials, self.replicates, self.study)):
            first, values = confirmed[0].trial, confirmed[0].values(objective)
            rows.append(("winner", first, f"{mean_and_spread(values)} ({len(values)} seeds)"))
        for label, trial, value in rows:
            words = f"{label:{LABEL}}{objective} {value}  "
            yield Text(words + _fitted(trial.name, width - len(words)), "bold" if trial is first else "")

    def _rows(self, width: int, marks: str) -> Iterator[Text]:
        shown = [*self.open[:ROWS], *self.ended]
        if not shown:
            return
        label = self.study.objective.removeprefix("val/")
        states, epochs = max(len(trial.state) for trial in shown), 2 * len(str(self.epochs)) + 1
        values = max(6, len(label))
        room = max(10, width - states - SMALL - epochs - values - 6)
        names = [_fitted(f"{t.number:03d} {t.error}" if t.state == "failed" else t.name, room) for t in shown]
        room = max(map(len, names))
        yield Text(f"\n{'':{states}} {'trial':{room}}  {'epoch':>{SMALL + epochs + 1}}  {label:>{values}}", "dim")
        for n, (trial, name) in enumerate(zip(shown, names, strict=True)):
            if n == ROWS < len(self.open):
                yield Text(f"... and {len(self.open) - ROWS} more")
            value = f"{trial.last[self.study.objective]:.4f}" if self.study.objective in trial.last else ""
            yield Text.assemble(
                f"{trial.state:{states}} {name:{room}}  ",
                _bar(epoch_of(trial), self.epochs, SMALL, marks),
                f"  {value:>{values}}",
                style=STYLES.get(trial.state, ""),
            )


def epoch_of(trial: TrialRecord) -> int:
    """How far it is."""
    return int(trial.last.get("epoch", _begins_after(trial)))


def _begins_after(trial: TrialRecord) -> int:
    return int(trial.schedule[-1]["after_epoch"]) if trial.parent else 0


def _over(trials: Sequence[TrialRecord]) -> int:
    return sum(trial.state in OVER for trial in trials)


def _counts(trials: Sequence[TrialRecord]) -> str:
    counts = Counter(trial.state for trial in trials)
    return "  " + ", ".join(f"{counts[state]} {state}" for state in (*OVER, *OPEN) if counts[state])


def _fact(label: str, *parts: str | Text) -> Text:
    return Text.assemble(f"{label:{LABEL}}", *parts)


def _bar(done: int, of: int, width: int, marks: str) -> Text:
    full = width * min(done, of) // of if of else 0
    return Text.assemble((marks[0] * full, "cyan"), (marks[1] * (width - full), "dim"), f" {done:{len(str(of))}}/{of}")


def _often(pace: float | None, what: str, least: int) -> str:
    """`12.1 epochs a second`, a minute or an hour: the first unit, of so many seconds at least, in which it happens

    once or more. Empty if it is not known.
    """
    if not pace:
        return ""
    units = {1: "second", 60: "minute", 3600: "hour"}
    seconds = next((u for u in units if u >= least and pace * u >= 1), 3600)
    return f"{pace * seconds:.1f} {what} a {units[seconds]}"


def _fitted(text: str, width: int) -> str:
    """Whole words only: a number that lost its last digits would be another one."""
    return textwrap.shorten(text, max(width, 4), placeholder=" ...")
