"""Everything that can happen in a study: one class for each kind of event, and the union of them.

An event is a line of JSON in the event log, with its kind in `event`. The first line of the log holds the format.
Raise `FORMAT` when a log of before can no longer be read: another field that is required, another meaning.
"""

import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from ensdistill.runtime.secrets import cleaned
from ensdistill_tune.records.result_rows import Diagnostics, TestMetrics

FORMAT = 1

State = Literal["running", "finished", "pruned", "failed", "interrupted"]  # of a trial
Metrics = dict[str, FiniteFloat]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float = Field(default_factory=lambda: round(time.time(), 3))  # seconds since 1970


class SessionStarted(_Event):
    """A process begins to work at the study, or continues it."""

    event: Literal["session_started"] = "session_started"
    versions: dict[str, str] = {}  # of the packages that decide the result


class TeachersReady(_Event):
    """Images and teachers are there, for the first time."""

    event: Literal["teachers_ready"] = "teachers_ready"
    ensemble: Metrics = {}  # on validation images
    teacher_mean: Metrics = {}  # the mean over single teachers
    hashes: dict[str, str] = {}  # of study, data, ensemble, code


class TrialStarted(_Event):
    """A new trial begins. The fields are those of its record."""

    event: Literal["trial_started"] = "trial_started"
    trial: int
    baseline: str | None = None
    sampled: dict[str, Any] = {}
    config_hash: str = ""
    replicate_of: int | None = None
    seed: int | None = None
    memory: dict[str, Any] = {}
    schedule: list[dict[str, Any]] = []
    parent: int | None = None
    replaces: int | None = None
    cpus: float = 0.0  # that the trial is given in this session, as `resources` has it
    gpus: float = 0.0

    @property
    def record(self) -> dict[str, Any]:
        """The fields of the record but for its number."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("at", "event", "trial")}


class TrialResumed(_Event):
    """A trial that was interrupted continues."""

    event: Literal["trial_resumed"] = "trial_resumed"
    trial: int
    cpus: float = 0.0  # as of `TrialStarted`
    gpus: float = 0.0


class EpochReported(_Event):
    """A trial has trained another epoch."""

    event: Literal["epoch_reported"] = "epoch_reported"
    trial: int
    metrics: Metrics


class TrialEnded(_Event):
    """A trial has ended, for good or for this session."""

    event: Literal["trial_ended"] = "trial_ended"
    trial: int
    state: State
    error: str | None = None  # for people
    error_kind: str | None = None  # the same for all trials that fail in the same way


class LatencyMeasured(_Event):
    """The latency of an architecture was measured, once for each machine."""

    event: Literal["latency_measured"] = "latency_measured"
    architecture: str
    machine: str  # the model of its GPU, or of its CPU with the number of threads
    milliseconds: FiniteFloat  # of one image


class TestEvaluated(_Event):
    """Students and teachers were evaluated on the test images."""

    __test__ = False  # no class of tests

    event: Literal["test_evaluated"] = "test_evaluated"
    who: list[list[int]]  # trial and seeds of each candidate
    results: list[TestMetrics] = []
    diagnostics: Diagnostics | None = None


class SessionEnded(_Event):
    """The study has ended, or is interrupted."""

    event: Literal["session_ended"] = "session_ended"
    state: str = "finished"  # of the study
    metrics: Metrics = {}  # of what ships; empty if MLflow was sent them before
    confirmed: dict[int, Metrics] = {}  # means and spreads by trial; empty as above
    best: int | None = None  # the trial that ships
    note: str = ""  # the first lines of the report, Markdown
    files: list[str] = []  # for MLflow, as seen from the folder of the study


class ReportWritten(_Event):
    """The report was written again, after the session."""

    event: Literal["report_written"] = "report_written"
    note: str = ""
    files: list[str] = []


class SettingsEnqueued(_Event):
    """Settings were put first in the queue of the search. The trial that has them names the request in its memory."""

    event: Literal["settings_enqueued"] = "settings_enqueued"
    request: str
    settings: dict[str, Any]  # by dotted names, some of the searched ones or all


class StopRequested(_Event):
    """A trial is to stop at its next report, or the study."""

    event: Literal["stop_requested"] = "stop_requested"
    request: str
    trial: int | None = None  # None: the study


class RequestRefused(_Event):
    """A request that was not accepted, and why."""

    event: Literal["request_refused"] = "request_refused"
    request: str
    reason: str


Event = Annotated[
    SessionStarted
    | TeachersReady
    | TrialStarted
    | TrialResumed
    | EpochReported
    | TrialEnded
    | LatencyMeasured
    | TestEvaluated
    | SessionEnded
    | ReportWritten
    | SettingsEnqueued
    | StopRequested
    | RequestRefused,
    Field(discriminator="event"),
]

ANY_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def without_secrets_in(event: Event) -> Event:
    """The event with `***` in the place of every password and token, which errors of other libraries may hold."""
    told = event.model_dump()
    clean = cleaned(told)
    return event if clean == told else ANY_EVENT.validate_python(clean)
