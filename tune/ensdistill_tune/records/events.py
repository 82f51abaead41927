"""Events of a study: one class for each kind of event, and their union.

An event is a record of the event log, with its kind in `event`. The first record of the log holds the format.
Increase `FORMAT` when older logs can no longer be read, because of a new required field or a changed meaning.
"""

import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from ensdistill.runtime.secrets import cleaned
from ensdistill_tune.records.result_rows import Diagnostics, TestMetrics

FORMAT = 2

State = Literal["running", "finished", "pruned", "failed", "interrupted"]  # of a trial
Metrics = dict[str, FiniteFloat]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float = Field(default_factory=lambda: round(time.time(), 3))  # seconds since 1970


class SessionStarted(_Event):
    """A process starts or resumes the study."""

    event: Literal["session_started"] = "session_started"
    versions: dict[str, str] = {}  # of the packages that affect the results


class TeachersReady(_Event):
    """Images and teachers are available, for the first time."""

    event: Literal["teachers_ready"] = "teachers_ready"
    ensemble: Metrics = {}  # on validation images
    teacher_mean: Metrics = {}  # the mean over single teachers
    hashes: dict[str, str] = {}  # of study, data, ensemble, code


class TrialStarted(_Event):
    """A new trial starts. The fields are those of its record."""

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
    cpus: float = 0.0  # of the trial in this session, from `resources`
    gpus: float = 0.0

    @property
    def record(self) -> dict[str, Any]:
        """Fields of the record, without its number."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("at", "event", "trial")}


class TrialResumed(_Event):
    """An interrupted trial resumes."""

    event: Literal["trial_resumed"] = "trial_resumed"
    trial: int
    cpus: float = 0.0  # as of `TrialStarted`
    gpus: float = 0.0


class EpochReported(_Event):
    """A trial has completed an epoch."""

    event: Literal["epoch_reported"] = "epoch_reported"
    trial: int
    metrics: Metrics


class TrialEnded(_Event):
    """A trial has ended, or is interrupted until the next session."""

    event: Literal["trial_ended"] = "trial_ended"
    trial: int
    state: State
    error: str | None = None  # text for the user
    error_kind: str | None = None  # equal for trials that fail in the same way


class LatencyMeasured(_Event):
    """The latency of an architecture was measured, which happens once for each machine."""

    event: Literal["latency_measured"] = "latency_measured"
    architecture: str
    machine: str  # the model of its GPU, or of its CPU with the number of threads
    milliseconds: FiniteFloat  # of one image


class TestEvaluated(_Event):
    """Students and teachers were evaluated on the test set."""

    __test__ = False  # pytest would collect the class because of its name

    event: Literal["test_evaluated"] = "test_evaluated"
    who: list[list[int]]  # trial and seeds of each candidate
    results: list[TestMetrics] = []
    diagnostics: Diagnostics | None = None


class SessionEnded(_Event):
    """The study has ended, or is interrupted."""

    event: Literal["session_ended"] = "session_ended"
    state: str = "finished"  # of the study
    metrics: Metrics = {}  # of the student that ships; empty if an earlier session logged them to MLflow
    confirmed: dict[int, Metrics] = {}  # means and standard deviations by trial; empty as above
    best: int | None = None  # the trial that ships
    note: str = ""  # the first lines of the report, Markdown
    files: list[str] = []  # for MLflow, relative to the folder of the study


class ReportWritten(_Event):
    """The report was regenerated after the session."""

    event: Literal["report_written"] = "report_written"
    note: str = ""
    files: list[str] = []


class SettingsEnqueued(_Event):
    """Settings were put first in the queue of the search. The memory of their trial names the request."""

    event: Literal["settings_enqueued"] = "settings_enqueued"
    request: str
    settings: dict[str, Any]  # by dotted names, some of the searched ones or all


class StopRequested(_Event):
    """A request to stop a trial at its next report, or to stop the study, was accepted."""

    event: Literal["stop_requested"] = "stop_requested"
    request: str
    trial: int | None = None  # None: the study


class RequestRefused(_Event):
    """A request was refused, with the reason."""

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
    """Returns the event with `***` in place of passwords and tokens, which errors of other libraries may contain.

    Args:
        event: The event.
    """
    content = event.model_dump()
    clean = cleaned(content)
    return event if clean == content else ANY_EVENT.validate_python(clean)
