"""Configuration of a process that runs a study or one of its trials.

Importing the package does not change the process; only the commands and the Ray workers call `configure_process`.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping

from ensdistill.runtime.allocator import disable_malloc_trim

DEFAULTS = {
    # Time limit in seconds within which a stopped trial must free its memory, so that the next trial can start in the
    # same process. With Ray's default of 2 s, the next trial would fail. The worker reads this value after each trial.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the event log replaces these loggers, which are slower
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # Tune never saves its state; the event log serves this purpose
    # Ray's memory monitor restarts killed tasks without limit, and when it kills a trial, Tune aborts the whole study.
    # If memory runs out without the monitor, the operating system kills only one worker, because Ray's workers have a
    # raised OOM score.
    "RAY_memory_monitor_refresh_ms": "0",
    # By default, Ray raises the niceness of workers by 15; on a busy machine, a trial then gets only a tenth of a core.
    "RAY_worker_niceness": "0",
    # Ray stops idle workers as soon as Tune reserves their CPUs, before a trial can use them. Milliseconds.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_AIR_NEW_OUTPUT": "0",  # disables Ray's progress output, because this package prints the progress of a study
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # hides all GPUs from trials that request no GPU
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # this package prints the URLs itself
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the tracker itself retries, after it has checked what the server received
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
}


def configure_process() -> None:
    """Sets the environment variables that Ray and MLflow read, and makes the allocator keep freed memory.

    Must run before Ray starts and before MLflow is imported. Variables that the user has set keep their values.
    Workers on the same machine inherit the variables; workers on other machines of a cluster call this function.
    """
    _set_defaults(DEFAULTS)
    disable_malloc_trim()


def _set_defaults(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def restored(*names: str) -> Iterator[None]:
    """Restores the given environment variables after the block."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def default_variables(variables: Mapping[str, str] = DEFAULTS) -> Iterator[None]:
    """Sets environment variables inside the block and restores them; variables that the user has set keep their values.

    By default, sets the same variables as `configure_process`, for a study in the user's process. The allocator is not
    changed, because such a change cannot be undone.
    """
    with restored(*variables):
        _set_defaults(variables)
        yield


@contextlib.contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable inside the block and restores it afterwards."""
    with restored(name):
        os.environ[name] = value
        yield
