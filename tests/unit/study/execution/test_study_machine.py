"""Any order of launch, kill, resume, extend, enqueue, stop, move, report and sync; `make chaos` tries more."""

import os

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.study_machine import StudyMachine, options_of


def test_a_study_survives_any_order_of_what_users_and_crashes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    run_state_machine_as_test(StudyMachine, settings=options_of(8))
