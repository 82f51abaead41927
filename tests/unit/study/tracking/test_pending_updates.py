"""Events that the MLflow thread keeps until MLflow has received them."""

from pathlib import Path

from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.tracking.tracker import EVENTS, _PendingUpdates
from tests.unit.study.execution.test_trial_planner import RULES, study, work


def test_sent_events_are_dropped_and_read_from_the_log_if_another_store_requires_them(tmp_path: Path) -> None:
    of, log = study(scheduler=RULES[0], searcher={"kind": "random"}), tmp_path / "events.jsonl"
    work(of, tmp_path)
    events = read_journal(log)
    assert len(events) > 120
    pending = _PendingUpdates(of, log)
    for event in events[:120]:
        pending.add(event)
    first = [(update.event, update.step, update.parent) for update in pending.after(0)]
    assert [update.event for update in pending.after(100)] == events[100:120]
    assert len(pending._updates) == 20
    assert [(update.event, update.step, update.parent) for update in pending.after(0)] == first
    assert pending.known == 120
    assert len(first) == min(EVENTS, 120)
