"""Callbacks: valid objects and their arguments. An exception in a callback does not stop the study."""

import warnings
from typing import Any

import pytest

from ensdistill.errors import ConfigError
from ensdistill_tune.callbacks import HOOKS, Callback, CallbackObserver, CallbackWarning


class Recorder:
    """An object with two callback methods that is not a `Callback`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_epoch(self, study: Any, trial: Any) -> None:
        self.calls.append(("epoch", study, trial))

    def on_study_end(self, results: Any) -> None:
        self.calls.append(("end", results))


class Broken(Callback):
    def on_epoch(self, study: Any, trial: Any) -> None:
        raise ValueError("no such key\nsecond line")


def observe(observer: CallbackObserver) -> None:
    study: Any = "study"
    trial: Any = "trial"
    observer.trial_started(study, trial)
    observer.trial_reported(study, trial)
    observer.trial_reported(study, trial)
    observer.trial_ended(study, trial)
    observer.study_ended(study)


def test_an_object_with_only_some_callback_methods_is_accepted_and_receives_the_study_and_the_trial() -> None:
    recorder = Recorder()
    observe(CallbackObserver([recorder, Callback()]))
    assert recorder.calls == [("epoch", "study", "trial")] * 2 + [("end", "study")]


def test_a_callback_that_raises_is_reported_once_and_all_others_are_called() -> None:
    recorder = Recorder()
    with pytest.warns(CallbackWarning) as caught:
        observe(CallbackObserver([Broken(), recorder]))
    (warning,) = caught
    assert str(warning.message).startswith("callback Broken.on_epoch raised ValueError: no such key;")
    assert len(recorder.calls) == 3


def test_a_callback_that_raises_is_reported_even_if_warnings_are_ignored() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # as set around Tune
        observe(CallbackObserver([Broken()]))
    assert [warning.category for warning in caught] == [CallbackWarning]


@pytest.mark.filterwarnings("error")
def test_a_callback_that_raises_does_not_stop_the_study_if_warnings_are_errors(recwarn: Any) -> None:
    observe(CallbackObserver([Broken()]))


def test_ctrl_c_in_a_callback_is_not_reported_as_a_callback_error() -> None:
    class Interrupted(Callback):
        def on_trial_end(self, study: Any, trial: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observe(CallbackObserver([Interrupted()]))


@pytest.mark.parametrize("callback", [print, "on_epoch", Recorder, None], ids=str)
def test_an_invalid_callback_is_refused_and_the_names_of_valid_methods_are_listed(callback: Any) -> None:
    with pytest.raises(ConfigError, match=r"object with at least one of the methods on_trial_start, on_epoch"):
        CallbackObserver([callback])


def test_the_callback_base_class_has_all_methods() -> None:
    assert {name for name in vars(Callback) if not name.startswith("_")} == set(HOOKS)
