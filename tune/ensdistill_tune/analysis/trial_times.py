"""Start and end times of each trial."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ensdistill_tune.records.events import Event, TrialEnded, TrialResumed, TrialStarted


@dataclass(frozen=True)
class TrialTimes:
    """Start and end times of a trial, in seconds since 1970.

    Attributes:
        began: Time of the first start.
        ended: Time of the end; None while the trial is running, including after it was resumed.
    """

    began: float
    ended: float | None = None

    @property
    def start(self) -> datetime:
        """Local time of the first start."""
        return datetime.fromtimestamp(self.began)

    @property
    def complete(self) -> datetime | None:
        """Local time of the end."""
        return None if self.ended is None else datetime.fromtimestamp(self.ended)

    @property
    def duration(self) -> timedelta | None:
        """Time from the first start to the end, including any interruptions; None while the trial is running."""
        return None if self.ended is None else timedelta(seconds=self.ended - self.began)


def trial_times(events: Iterable[Event]) -> Mapping[int, TrialTimes]:
    """Returns the start and end times of all trials, keyed by trial number.

    Args:
        events: The events of the study, in order.
    """
    times: dict[int, TrialTimes] = {}
    for event in events:
        match event:
            case TrialStarted(trial=number, at=at):
                times[number] = TrialTimes(at)
            case TrialResumed(trial=number):
                times[number] = TrialTimes(times[number].began)
            case TrialEnded(trial=number, at=at):
                times[number] = TrialTimes(times[number].began, at)
    return times
