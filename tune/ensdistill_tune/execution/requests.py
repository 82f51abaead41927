"""Handles requests in the process that runs a study, and records whether each request was accepted or refused."""

import time

from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.events import Event, RequestRefused, SettingsEnqueued, StopRequested
from ensdistill_tune.records.inbox import EnqueueRequest, Request, StopRequest
from ensdistill_tune.study.validation import enqueued_issues

INTERVAL_SECONDS = 0.5  # seconds between two reads of the inbox


class StudyRequests:
    """Reads the requests in the inbox of a study and passes them to the planner.

    A request is removed after its event is written. After a crash, a request that already has an event is not applied
    again.
    """

    def __init__(self, planner: TrialPlanner) -> None:
        self._planner, self._study = planner, planner.study
        self._inbox = planner.progress.folder.inbox
        self._answered = {getattr(event, "request", None) for event in planner.progress.past}
        self._due, self._ended, self._stopped = 0.0, 0, False

    def stop_study(self) -> bool:
        """Handles pending requests twice a second and after each trial. Returns whether the study must stop.

        If a callback requests a stop at the end of a trial, the study therefore stops before the next trial ends.
        """
        self._planner.progress.flush()
        now = time.monotonic()
        if now >= self._due or self._planner.ended != self._ended:
            self._due, self._ended = now + INTERVAL_SECONDS, self._planner.ended
            for name, request in self._inbox.pending():
                if name not in self._answered:
                    self._take(name, request)
                self._inbox.remove(name)
        return self._stopped

    def _take(self, name: str, request: Request | None) -> None:
        self._answered.add(name)
        event = self._event(name, request)
        self._planner.progress.append_event(event)
        self._planner.accept(event)
        if isinstance(event, StopRequested) and event.trial is None:
            self._stopped = True

    def _event(self, name: str, request: Request | None) -> Event:
        match request:
            case EnqueueRequest(settings=settings):
                reason = self._why_not_enqueued(request)
                return _refused(name, reason) if reason else SettingsEnqueued(request=name, settings=settings)
            case StopRequest(trial=trial):
                reason = "" if trial is None else self._why_not_stopped(trial)
                return _refused(name, reason) if reason else StopRequested(request=name, trial=trial)
            case _:
                return _refused(
                    name, f"inbox/{name}.json: must be a valid request; use `ensdistill-tune enqueue` or `stop`"
                )

    def _why_not_enqueued(self, request: EnqueueRequest) -> str:
        if issues := enqueued_issues(self._study, request.settings):
            return "; ".join(map(str, issues))
        if self._planner.has_room:
            return ""
        return (
            f"the search starts no more trials (budget.trials is {self._study.budget.trials}); resume the study with "
            "a larger budget and enqueue the settings again"
        )

    def _why_not_stopped(self, number: int) -> str:
        trial = self._planner.progress.trials.get(number)
        if trial is None:
            return f"trial {number} does not exist; trials 1 to {max(self._planner.progress.trials, default=0)} exist"
        if trial.state != "running":
            return f"trial {number}: must be running, got {trial.state}"
        if trial.kind == "replicate":
            rule = "must not be a replicate, because the confirmation requires every replicate"
            return f"trial {number}: {rule}; stop the study instead"
        return ""


def _refused(name: str, reason: str) -> RequestRefused:
    return RequestRefused(request=name, reason=reason)
