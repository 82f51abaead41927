"""What a study knows about itself: the plain record of every trial, and the files that keep it."""

import json
import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ensdistill.errors import DataError
from ensdistill.files import write_json

METRICS = ("val/nll", "val/accuracy", "val/brier", "val/ece", "val/cnll", "val/dee")  # that are shown everywhere
UNDER_WAY = ("training teachers", "running", "confirming")  # states of a study that somebody is at work on
FAILURE = "failure"  # in the last report of a trial that failed by itself: why
State = Literal["running", "finished", "pruned", "failed", "interrupted"]


@dataclass
class TrialRecord:
    """One trial, from its start to its end."""

    number: int  # 1 is the first; baselines come first
    trial_id: str  # Ray's
    baseline: str | None  # the preset, for a baseline
    sampled: dict[str, Any]  # the searched settings by dotted name
    config_hash: str
    state: State = "running"
    epochs: list[dict[str, float]] = field(default_factory=list)  # every report
    error: str | None = None
    checkpoint: str | None = None  # folder of the last one
    confirms: int | None = None  # the trial whose settings it repeats, after the search
    seed: int | None = None  # of such a repeat

    @property
    def name(self) -> str:
        """Short and telling."""
        if self.confirms is not None:
            return f"{self.number:03d} repeats {self.baseline or f'{self.confirms:03d}'} with seed {self.seed}"
        return f"{self.number:03d} {self.baseline or self.settings}"

    @property
    def settings(self) -> str:
        """What was sampled, in short: `step_size=0.0123 averaging=ema`."""
        return " ".join(f"{_short_name(name)}={_short(value)}" for name, value in self.sampled.items())

    @property
    def last(self) -> dict[str, float]:
        """The last report, empty before the first."""
        return self.epochs[-1] if self.epochs else {}

    def value(self, metric: str) -> float | None:
        """A metric after the last epoch; None unless the trial ran to its end."""
        return self.last.get(metric) if self.state == "finished" else None


def ranked(trials: Iterable[TrialRecord], metric: str, mode: str) -> list[TrialRecord]:
    """The finished trials, best first; of equals the earlier one first."""
    sign = -1 if mode == "max" else 1
    finished = [trial for trial in trials if trial.value(metric) is not None]
    return sorted(finished, key=lambda trial: (sign * (trial.value(metric) or 0.0), trial.number))


def counts(trials: Iterable[TrialRecord]) -> dict[str, int]:
    """How many trials are in each state."""
    return dict(Counter(trial.state for trial in trials))


class StudyFolder:
    """`<studies>/<name>/`: study.json (state and summary) and trials/ (one JSON file a trial that has ended)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replaces study.json."""
        write_json(self.path / "study.json", summary)

    def remove_summary(self) -> None:
        """Takes study.json away again."""
        (self.path / "study.json").unlink(missing_ok=True)

    def read_summary(self) -> dict[str, Any]:
        """The content of study.json; a study whose process is gone without a word has the state `died`.

        Raises DataError if there is none, or it is damaged.
        """
        try:
            summary: dict[str, Any] = json.loads((self.path / "study.json").read_text())
            state, process = summary["state"], summary["process"]
        except OSError as error:
            raise DataError(f"{self.path}: there is no study here") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path / 'study.json'}: damaged") from error
        if state in UNDER_WAY and is_gone(process):
            summary["state"] = "died"
        return summary

    def write_trial(self, trial: TrialRecord) -> None:
        """Keeps one trial."""
        write_json(self.path / "trials" / f"{trial.number:05d}.json", asdict(trial))

    def read_trials(self) -> list[TrialRecord]:
        """All trials that were kept, by number."""
        return [TrialRecord(**json.loads(file.read_text())) for file in sorted((self.path / "trials").glob("*.json"))]


def this_process() -> dict[str, Any]:
    """Which process this is, for `is_gone`."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def is_gone(process: dict[str, Any]) -> bool:
    """Whether a process of this machine is no more; of another machine nobody here can say."""
    if process["host"] != socket.gethostname():
        return False
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _short_name(name: str) -> str:
    parts = name.split(".")
    return parts[-2] if parts[-1] == "kind" and len(parts) > 1 else parts[-1]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
