"""Requests to a study from another process: enqueue settings, stop a trial, stop the study."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ensdistill.errors import ConfigError, DataError
from ensdistill.settings.validation import validate
from ensdistill_tune.records.event_log import answer_to
from ensdistill_tune.records.events import RequestRefused
from ensdistill_tune.records.inbox import EnqueueRequest, Request, StopRequest
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import UNDER_WAY
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.validation import enqueued_issues

WAIT_SECONDS = 5.0  # seconds to wait for the answer
POLL_SECONDS = 0.1
Answer = Literal["accepted", "waiting"]


def enqueue(path: str | Path, settings: Mapping[str, Any], *, wait_s: float = WAIT_SECONDS) -> Answer:
    """Enqueues settings for the next search trial of a study. The trial counts towards the budget.

    If the study is not running, the request stays pending until the next session. If the budget allows no further
    trial, that session refuses the request and prints a message.

    Args:
        path: The folder of the study, such as `studies/mine`.
        settings: Values of searched settings, keyed by dotted name; the searcher suggests the remaining values.
        wait_s: Maximum time in seconds to wait for the process that runs the study to answer.

    Returns:
        `accepted`; or `waiting` if the study is not running or has not answered yet, in which case the request is
        handled later.

    Raises:
        ConfigError: The process that runs the study refuses the settings.
        DataError: The study does not exist.
    """
    folder = StudyDirectory(Path(path))
    study = validate(StudyConfig, folder.read_summary()["study"])
    plain = {
        name: value.item() if hasattr(value, "item") else value for name, value in settings.items()
    }  # converts NumPy scalars
    if issues := enqueued_issues(study, plain):
        raise ConfigError(issues)
    return _send(folder, EnqueueRequest(settings=plain), wait_s) or "waiting"


def stop(path: str | Path, trial: int | None = None, *, wait_s: float = WAIT_SECONDS) -> Answer:
    """Stops a study in the same way as Ctrl-C, so that it can be resumed, or prunes one trial at its next report.

    Args:
        path: The folder of the study, such as `studies/mine`.
        trial: Number of the trial to stop; None to stop the study.
        wait_s: Maximum time in seconds to wait for the process that runs the study to answer.

    Returns:
        `accepted`, or `waiting` if the study has not answered yet.

    Raises:
        ConfigError: The trial is not running, or must not be stopped.
        DataError: The study is not running.
    """
    folder = StudyDirectory(Path(path))
    _require_running(folder)
    answer = _send(folder, StopRequest(trial=trial), wait_s)
    if answer is None:
        _require_running(folder)
    return answer or "waiting"


def _require_running(folder: StudyDirectory) -> None:
    state = folder.read_summary()["state"]
    if state not in UNDER_WAY:
        raise DataError(
            f"{folder.path}: only a running study can be stopped, and no process is running this one (state: {state})"
        )


def _send(folder: StudyDirectory, request: Request, wait_s: float) -> Answer | None:
    """Sends a request and returns the answer; None if no answer arrives in time.

    A refusal raises ConfigError with the reason.
    """
    start = folder.journal.stat().st_size if folder.journal.exists() else 0
    name, until = folder.inbox.send(request), time.monotonic() + wait_s
    while time.monotonic() < until and folder.read_summary()["state"] in UNDER_WAY:
        if not folder.inbox.holds(name):
            break
        time.sleep(POLL_SECONDS)
    match answer_to(name, folder.journal, start):
        case None:
            return None
        case RequestRefused(reason=reason):
            raise ConfigError(reason)
        case _:
            return "accepted"
