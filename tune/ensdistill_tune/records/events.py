"""Events of a study: one class for each kind of event, and the union of these classes.

An event is a record of the event log; its field `event` states the kind. The first record of the log states the format.
Increase `FORMAT` when a new required field or a changed meaning makes older logs unreadable.
"""

import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from ensdistill.runtime.secrets import cleaned
from ensdistill_tune.records.result_rows import Diagnostics, TestMetrics

FORMAT = 2

State = Literal["running", "finished", "pruned", "failed", "interrupted"]  # states of a trial
Metrics = dict[str, FiniteFloat]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float = Field(default_factory=lambda: round(time.time(), 3))  # seconds since 1970


class SessionStarted(_Event):
    """A process started or resumed the study."""

    event: Literal["session_started"] = "session_started"
    versions: dict[str, str] = {}  # versions of the packages that affect the results


class TeachersReady(_Event):
    """Images and teachers became available for the first time."""

    event: Literal["teachers_ready"] = "teachers_ready"
    ensemble: Metrics = {}  # metrics of the ensemble on validation images
    teacher_mean: Metrics = {}  # metrics of the individual teachers, averaged
    hashes: dict[str, str] = {}  # hashes of study, data, ensemble and code


class TrialStarted(_Event):
    """A new trial started. The fields are those of the trial's record."""

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
    cpus: float = 0.0  # resources of the trial in this session
    gpus: float = 0.0

    @property
    def record(self) -> dict[str, Any]:
        """Fields of the trial record, without the trial number."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("at", "event", "trial")}


class TrialResumed(_Event):
    """An interrupted trial resumed."""

    event: Literal["trial_resumed"] = "trial_resumed"
    trial: int
    cpus: float = 0.0  # as in `TrialStarted`
    gpus: float = 0.0


class EpochReported(_Event):
    """A trial completed an epoch."""

    event: Literal["epoch_reported"] = "epoch_reported"
    trial: int
    metrics: Metrics


class TrialEnded(_Event):
    """A trial ended, or was interrupted and can be resumed in the next session."""

    event: Literal["trial_ended"] = "trial_ended"
    trial: int
    state: State
    error: str | None = None  # error message for the user
    error_kind: str | None = None  # the same for all trials that fail in the same way


class LatencyMeasured(_Event):
    """The latency of an architecture was measured on a machine for the first time."""

    event: Literal["latency_measured"] = "latency_measured"
    architecture: str
    machine: str  # GPU model, or CPU model and number of threads
    milliseconds: FiniteFloat  # latency for one image of the network's input size
    photo_milliseconds: FiniteFloat | None = None  # latency for one photo of 500x375 pixels, including resizing


class TestEvaluated(_Event):
    """Students and teachers were evaluated on the test set."""

    __test__ = False  # without this, pytest would treat the class as a test because of its name

    event: Literal["test_evaluated"] = "test_evaluated"
    who: list[list[int]]  # trial number and seeds of each candidate
    results: list[TestMetrics] = []
    diagnostics: Diagnostics | None = None


class SessionEnded(_Event):
    """The study ended or was interrupted."""

    event: Literal["session_ended"] = "session_ended"
    state: str = "finished"  # state of the study
    metrics: Metrics = {}  # metrics of the best trial and of the winner; empty if an earlier session logged them
    confirmed: dict[int, Metrics] = {}  # means and standard deviations, keyed by trial; empty if already logged
    best: int | None = None  # trial of the exported student
    note: str = ""  # summary of the report, in Markdown
    files: list[str] = []  # files for MLflow, relative to the folder of the study


class ReportWritten(_Event):
    """The report was regenerated after a session."""

    event: Literal["report_written"] = "report_written"
    note: str = ""
    files: list[str] = []


class SettingsEnqueued(_Event):
    """Settings were put at the front of the search queue.

    The name of the request is stored in the `memory` field of the trial that uses the settings.
    """

    event: Literal["settings_enqueued"] = "settings_enqueued"
    request: str
    settings: dict[str, Any]  # some or all of the searched settings, keyed by dotted name


class StopRequested(_Event):
    """A request to stop a trial at its next report, or to stop the study, was accepted."""

    event: Literal["stop_requested"] = "stop_requested"
    request: str
    trial: int | None = None  # None to stop the study


class RequestRefused(_Event):
    """A request was refused; the event contains the reason."""

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
    """Returns the event with `***` in place of passwords and tokens, which messages from other libraries may contain.

    Args:
        event: The event.
    """
    content = event.model_dump()
    clean = cleaned(content)
    return event if clean == content else ANY_EVENT.validate_python(clean)
