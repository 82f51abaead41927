"""User callbacks: objects whose methods are called while a study runs."""

import warnings
from collections.abc import Sequence
from typing import Any

from ensdistill.errors import ConfigError, format_value
from ensdistill.runtime.boundary import cause_of
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_state import StudyState

HOOKS = ("on_trial_start", "on_epoch", "on_trial_end", "on_study_end")


class Callback:
    """Base class of callbacks. Any other object with at least one of these methods is also accepted.

    The thread that runs the study calls the methods and waits until they return. A callback must not change the study.
    """

    def on_trial_start(self, study: StudyState, trial: TrialRecord) -> None:
        """Called when a trial starts, or resumes after an interruption."""

    def on_epoch(self, study: StudyState, trial: TrialRecord) -> None:
        """Called after each epoch of a trial; `trial.last` contains the metrics of this epoch."""

    def on_trial_end(self, study: StudyState, trial: TrialRecord) -> None:
        """Called when a trial has ended; `trial.state` is its final state."""

    def on_study_end(self, results: StudyResults) -> None:
        """Called when the study has ended or was interrupted; `results.state` is its final state."""


class CallbackWarning(UserWarning):
    """Warning that a callback raised an exception. The study continues."""


class CallbackObserver:
    """Calls the callbacks of a study. The first exception that each callback raises is reported as a warning."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        """Checks the callbacks.

        Args:
            callbacks: The callbacks, in the order in which they are called.

        Raises:
            ConfigError: A callback has none of the methods.
        """
        for callback in callbacks:
            if isinstance(callback, type) or not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
                raise ConfigError(
                    f"callbacks: each must be an object with at least one of the methods {', '.join(HOOKS[:-1])} and "
                    f"{HOOKS[-1]}, got {format_value(callback)}. Inherit from ensdistill_tune.Callback."
                )
        self._callbacks, self._reported = list(callbacks), set[int]()

    def trial_started(self, study: StudyState, trial: TrialRecord) -> None:
        """Calls `on_trial_start`."""
        self._call("on_trial_start", study, trial)

    def trial_reported(self, study: StudyState, trial: TrialRecord) -> None:
        """Calls `on_epoch`."""
        self._call("on_epoch", study, trial)

    def trial_ended(self, study: StudyState, trial: TrialRecord) -> None:
        """Calls `on_trial_end`."""
        self._call("on_trial_end", study, trial)

    def study_ended(self, results: StudyResults) -> None:
        """Calls `on_study_end`."""
        self._call("on_study_end", results)

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            if (method := getattr(callback, hook, None)) is not None:
                try:
                    method(*arguments)
                except Exception as error:  # an error in a callback must not end the study
                    self._report(callback, hook, error)

    def _report(self, callback: Any, hook: str, error: Exception) -> None:
        if id(callback) in self._reported:
            return
        self._reported.add(id(callback))
        text = f"callback {type(callback).__name__}.{hook} raised {cause_of(error)}; its later errors are not shown"
        with warnings.catch_warnings():
            warnings.simplefilter("always", CallbackWarning)  # other warnings are ignored while Ray Tune runs
            warnings.warn(text, CallbackWarning, stacklevel=2)
