"""What a trial tells the study, and when."""

from typing import Any

import pytest

from ensdistill_tune import trial
from ensdistill_tune.record import EPOCHS, FAILURE
from ensdistill_tune.trial import REPORT_SECONDS, _Reports


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(trial.tune, "report", sent.append)
    return sent


def test_short_epochs_are_reported_together_and_each_once(told: list[dict[str, Any]]) -> None:
    reports = _Reports()
    for n in range(1, 13):
        reports.add({"epoch": n}, REPORT_SECONDS / 2.5, at_once=n == 12)
    assert [[metrics["epoch"] for metrics in report[EPOCHS]] for report in told] == [
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9],
        [10, 11, 12],
    ]


def test_an_epoch_that_may_decide_does_not_wait_nor_do_those_before_it(told: list[dict[str, Any]]) -> None:
    reports = _Reports()
    reports.add({"epoch": 1}, 0.0, at_once=False)
    assert told == []
    reports.add({"epoch": 2}, 0.0, at_once=True)
    assert told == [{EPOCHS: [{"epoch": 1}, {"epoch": 2}]}]


def test_a_failure_takes_along_the_epochs_before_it(told: list[dict[str, Any]]) -> None:
    reports = _Reports()
    reports.add({"epoch": 1}, 0.0, at_once=False)
    reports.send(**{FAILURE: "why"})
    assert told == [{EPOCHS: [{"epoch": 1}], FAILURE: "why"}]
