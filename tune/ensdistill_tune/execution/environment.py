"""What a process that runs a study or one of its trials changes for all of its libraries.

No module does so when it is imported: only a process of ours, a command or a Ray worker, calls `configure_process`.
"""

import contextlib
import os
from collections.abc import Iterator

from ensdistill.runtime.allocator import disable_malloc_trim

DEFAULTS = {
    # A stopped trial may need this many seconds to free its memory before its process serves the next one. Ray would
    # give it 2 s and let the next one fail. Read in the worker, after each trial.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the event log is complete and cheaper
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # for the same reason Tune saves no state
    # Ray's memory monitor restarts a task that it has killed without limit, and when it kills a trial, Tune aborts the
    # whole study. Without it the operating system kills one worker: Ray's workers raise their own OOM score.
    "RAY_memory_monitor_refresh_ms": "0",
    # Ray lowers the priority of its workers by 15: on a machine that does other work, trials get a tenth of a core.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_AIR_NEW_OUTPUT": "0",  # the console shows the progress of a study
    "RAY_prestart_worker_first_driver": "0",  # processes that no trial can use
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is reported to anybody
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the console prints the addresses
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the tracker tries again, after it has checked what the server has
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
}


def configure_process() -> None:
    """Sets the environment variables that Ray and MLflow read, and how this process keeps freed memory.

    Must run before Ray starts and before MLflow is imported. Variables that the user has set keep their values.
    Workers on the same machine inherit the variables; those on other machines of a cluster set their own.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    disable_malloc_trim()


@contextlib.contextmanager
def restored(*names: str) -> Iterator[None]:
    """After the block these environment variables have their values of before."""
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
def configured() -> Iterator[None]:
    """Sets the variables of `configure_process` inside the block, for a study in the process of a user.

    The allocator stays as it is: that cannot be undone.
    """
    with restored(*DEFAULTS):
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        yield


@contextlib.contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable inside the block and restores it after it."""
    with restored(name):
        os.environ[name] = value
        yield
