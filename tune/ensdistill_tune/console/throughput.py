"""Rates at which trials end and epochs are reported, computed from the times of these events."""

from collections import deque
from collections.abc import Sequence

from ensdistill_tune.records.trial_record import OVER, TrialRecord

RECENT_SECONDS = 300.0
MIN_EPOCHS = 10  # number of epochs that must have been reported before a rate is shown
MIN_TRIALS = 3  # number of trials that must have ended before a rate is shown
ENDED = 5  # number of recently ended trials that are shown


class Throughput:
    """Rate of one kind of event over the last five minutes, or over the last ten events if these span a longer time."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def happens(self, at: float) -> None:
        """Counts one event.

        Args:
            at: Time of the event in seconds; not earlier than the time of the previous event.
        """
        self._times.append(at)
        while len(self._times) > MIN_EPOCHS + 1 and self._times[0] < at - RECENT_SECONDS:
            self._times.popleft()

    def per_second(self, now: float, least: int) -> float | None:
        """Returns the rate in events per second; None if fewer than `least` events followed the first event."""
        often = len(self._times) - 1
        return often / (now - self._times[0]) if often >= least and now > self._times[0] else None


class RecentActivity:
    """Recent activity of one session.

    Attributes:
        ended: The trials that ended most recently, in order.
    """

    def __init__(self) -> None:
        self._epochs, self._trials, self._began = Throughput(), Throughput(), False
        self.ended: deque[TrialRecord] = deque(maxlen=ENDED)

    def reported(self, at: float) -> None:
        """Counts an epoch. The clock starts at the first report, because the first trials wait for workers to start."""
        if not self._began:
            self._began = True
            self._trials.happens(at)
        self._epochs.happens(at)

    def over(self, trial: TrialRecord, at: float) -> None:
        """Counts an ended trial. An interrupted trial may continue and is not counted."""
        if trial.state in OVER:
            self.ended.append(trial)
            if self._began:
                self._trials.happens(at)

    def paces(self, now: float, trials: Sequence[TrialRecord]) -> tuple[float | None, float | None]:
        """Returns the rates in trials per second and epochs per second; None for a rate that is not known yet.

        Trials that start together report almost simultaneously, so ten reports from several running trials can be too
        close together to determine a rate. The rate of epochs therefore requires three reports per running trial.
        """
        running = sum(trial.state == "running" for trial in trials)
        return self._trials.per_second(now, MIN_TRIALS), self._epochs.per_second(now, max(MIN_EPOCHS, 3 * running))
