"""Totals updated at each event equal those computed from all records."""

from pathlib import Path

import pytest

from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.trial_index import TrialIndex
from ensdistill_tune.records.trial_record import OVER, PRIMARY, HoursUsed, count_states, of_kind
from tests.unit.study.execution.test_trial_planner import RULES, study, work


def test_after_each_event_the_totals_equal_those_computed_from_all_records(tmp_path: Path) -> None:
    of = study(scheduler=RULES[0], searcher={"kind": "random"}, objective="val/nll")
    work(of, tmp_path, slots=3, lost=[2, 5])
    index, pruned = TrialIndex(of.rank), 0
    for event in read_journal(tmp_path / "events.jsonl"):
        index.apply(event)
        trials = list(index.trials.values())
        primary = of_kind(trials, *PRIMARY)
        assert (index.primary, index.replicates) == (primary, of_kind(trials, "replicate"))
        assert index.searched == of_kind(trials, "search")
        assert index.running == [trial for trial in trials if trial.state == "running"]
        assert index.counts(*PRIMARY) == count_states(primary)
        assert index.count(OVER, *PRIMARY, "replicate") == sum(trial.state in OVER for trial in trials)
        assert index.epochs == sum(len(trial.epochs) for trial in index.searched)
        assert index.best is next(iter(of.rank(primary)), None)
        hours = HoursUsed.of(trials)
        assert (index.hours.cpu, index.hours.gpu) == pytest.approx((hours.cpu, hours.gpu))
        pruned += index.states["search", "pruned"]
    assert pruned > 0
    running = index.running
    assert index.interrupt() == running
    assert index.running == []
