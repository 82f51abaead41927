"""A study after launch, kill, resume, extend, enqueue, stop, move, report and sync in any order; see `make chaos`."""

import os

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.study_machine import StudyMachine, options_of


def test_a_study_stays_consistent_after_user_actions_and_crashes_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    run_state_machine_as_test(StudyMachine, settings=options_of(8))
