"""Event logs of earlier versions are read and replayed with the same result as in the version that wrote them."""

import json
import shutil
from pathlib import Path

import pytest

from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import EpochReported, TrialEnded, TrialStarted
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState
from tests.golden.record import HERE, trials_of

LOGS = sorted(HERE.glob("log-format-*.jsonl"))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_replaying_a_golden_log_gives_the_recorded_trials(log: Path) -> None:
    recorded = json.loads(log.with_suffix(".json").read_text())["trials"]
    assert json.loads(json.dumps(trials_of(read_journal(log)))) == recorded


def planner_after(records: int, log: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> TrialPlanner:
    """Returns the planner of a study whose log ends after `records` records, without any training."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    home.mkdir()
    study = StudyConfig.model_validate(json.loads(log.with_suffix(".json").read_text())["study"])
    (home / "events.jsonl").write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:records]))
    return TrialPlanner(StudyState(study, StudyDirectory(home), {}, trial_warnings), slots=1)


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_planner_restored_from_part_of_a_golden_log_repeats_the_next_suggestion_and_decision(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, repeated = read_journal(log), {"suggestions": 0, "decisions": 0}
    for n, event in enumerate(events):
        if not isinstance(event, TrialStarted) or event.replicate_of is not None:
            continue
        planner = planner_after(n + 1, log, tmp_path / str(n), monkeypatch)
        suggestion = planner.next()
        assert isinstance(suggestion, dict)
        assert (suggestion["number"], suggestion["sampled"]) == (event.trial, event.sampled)
        repeated["suggestions"] += 1
        for later in events[n + 1 :]:
            if isinstance(later, TrialEnded) and later.trial == event.trial:
                break
            if isinstance(later, EpochReported):
                decision = planner.report(later.trial, dict(later.metrics))
        if later.state in ("pruned", "finished"):
            assert (decision is Decision.STOP) == (later.state == "pruned")
            repeated["decisions"] += 1
        shutil.rmtree(tmp_path / str(n))
    assert repeated["suggestions"] == 10
    assert repeated["decisions"] >= 4
