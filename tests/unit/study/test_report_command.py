"""What a trial reports to the study, and when."""

from typing import Any

from ensdistill_tune.execution.worker import REPORT_SECONDS, _EpochReporter
from ensdistill_tune.records.trial_record import EPOCHS, FAILURE


def test_short_epochs_are_reported_in_groups_and_each_epoch_is_reported_once() -> None:
    told: list[dict[str, Any]] = []
    reports = _EpochReporter(told.append)
    for n in range(1, 13):
        reports.add({"epoch": n}, REPORT_SECONDS / 2.5, at_once=n == 12)
    assert [[metrics["epoch"] for metrics in report[EPOCHS]] for report in told] == [
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9],
        [10, 11, 12],
    ]


def test_a_decision_epoch_and_pending_earlier_epochs_are_sent_immediately() -> None:
    told: list[dict[str, Any]] = []
    reports = _EpochReporter(told.append)
    reports.add({"epoch": 1}, 0.0, at_once=False)
    assert told == []
    reports.add({"epoch": 2}, 0.0, at_once=True)
    assert told == [{EPOCHS: [{"epoch": 1}, {"epoch": 2}]}]


def test_a_failure_is_reported_with_the_preceding_epochs() -> None:
    told: list[dict[str, Any]] = []
    reports = _EpochReporter(told.append)
    reports.add({"epoch": 1}, 0.0, at_once=False)
    reports.send(**{FAILURE: "why"})
    assert told == [{EPOCHS: [{"epoch": 1}], FAILURE: "why"}]
