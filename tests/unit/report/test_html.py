"""The report depends only on the files of a study, is self-contained, and escapes all external text."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ensdistill.errors import DataError
from ensdistill_tune.analysis.outcome import SessionOutcome
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.analysis.test_evaluation import write_confirmation
from ensdistill_tune.records.event_log import EventLog
from ensdistill_tune.records.events import EpochReported, SessionStarted, TestEvaluated, TrialEnded, TrialStarted
from ensdistill_tune.report.html import write_report
from tests.commands import call
from tests.unit.report.synthetic import facts

EVIL = "</script><script>alert(1)</script> & | **bold**"


# Fields of a trial that later events set.
HAPPENS = ("number", "epochs", "state", "error", "error_kind", "cpu_seconds", "gpu_seconds", "counted_until")


def on_disk(known: StudyResults, home: Path) -> Path:
    """Writes the files of such a study."""
    home.mkdir(parents=True)
    log = EventLog(home / "events.jsonl")
    log.append(SessionStarted(at=0.0))
    for trial in (*known.trials, *known.replicates):
        record = {name: value for name, value in asdict(trial).items() if name not in HAPPENS}
        log.append(TrialStarted(at=1.0, trial=trial.number, **record))
        for epoch in trial.epochs:
            log.append(EpochReported(at=2.0, trial=trial.number, metrics=epoch))
        log.append(TrialEnded(at=3.0, trial=trial.number, state=trial.state, error=trial.error))
    for n in range(known.looks):
        log.append(TestEvaluated(at=4.0, who=[[n]]))
    summary = {
        **known.summary,
        "study_id": "0" * 32,
        "study": known.study.model_dump(mode="json"),
        "total": len(known.trials),
    }
    (home / "study.json").write_text(json.dumps(summary))
    if known.diagnostics:
        (home / "diagnostics.json").write_text(known.diagnostics.model_dump_json())
    if known.confirmed:
        outcome = SessionOutcome(confirmed=known.confirmed, stages=known.stages)
        write_confirmation(home, known.study, outcome, known.tested, [])
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_disk(facts(40), tmp_path_factory.mktemp("studies") / "synthetic")


def test_results_read_from_the_files_match_the_events(home: Path) -> None:
    known, read = facts(40), read_facts(home)
    assert read.looks == known.looks
    assert [asdict(trial) for trial in read.trials] == [asdict(trial) for trial in known.trials]
    assert [c.label for c in read.confirmed] == [c.label for c in known.confirmed]
    assert read.confirmed[0].values("val/nll") == known.confirmed[0].values("val/nll")
    assert [c.dropped_for for c in read.confirmed] == [c.dropped_for for c in known.confirmed]
    assert read.stages == known.stages


def test_the_page_is_self_contained_and_every_figure_is_also_a_separate_page(home: Path) -> None:
    files, lead = write_report(home)
    page = (home / "report.html").read_text()
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)=(?!"data:image/png;base64,)', page)
    keys = re.findall(r'<figure id="(\w+)">', page)
    assert {"history", "curves", "importance", "slices", "parallel", "confirmation", "reliability"} <= set(keys)
    assert files == [home / "report.html", home / "report.md", *(home / "figures" / f"{key}.html" for key in keys)]
    assert lead in (home / "report.md").read_text()


def test_the_same_files_give_the_same_report(home: Path) -> None:
    write_report(home)
    first = [(home / name).read_bytes() for name in ("report.html", "report.md")]
    write_report(home)
    assert [(home / name).read_bytes() for name in ("report.html", "report.md")] == first


def test_the_error_of_a_trial_is_escaped_in_the_page(tmp_path: Path) -> None:
    known = facts(40)
    failed = [replace(trial, error=EVIL) if trial.state == "failed" else trial for trial in known.trials]
    every = [replace(t, state="failed", error=EVIL, epochs=[]) if n % 4 == 0 else t for n, t in enumerate(failed)]
    home = on_disk(replace(known, trials=every, confirmed=(), replicates=(), tested=()), tmp_path / "evil")
    write_report(home)
    page = (home / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize("state", ["interrupted", "running", "timed_out"])
def test_a_report_can_be_written_for_an_unfinished_study(state: str, tmp_path: Path) -> None:
    known = facts(12, seeds=0)
    few = replace(known, trials=known.trials[:4], summary={**known.summary, "state": state}, diagnostics=None)
    _, lead = write_report(on_disk(few, tmp_path / "early"))
    assert lead.startswith("- **This study ")


def test_a_report_can_be_written_without_a_finished_trial(tmp_path: Path) -> None:
    known = facts(12, seeds=0)
    none = [replace(trial, state="failed", error="diverged") for trial in known.trials]
    _, lead = write_report(on_disk(replace(known, trials=none, diagnostics=None), tmp_path / "none"))
    assert "no trial has completed" in lead


def test_the_command_prints_the_summary_and_the_path_of_the_report(home: Path) -> None:
    done = call("ensdistill-tune", "report", home.name, "--studies-dir", home.parent)
    assert done.code == 0, done.err
    assert f"report: {home / 'report.html'}" in done.out
    assert "Settings that mattered" in done.out


def test_a_report_on_a_missing_study_causes_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no study in this folder"):
        write_report(tmp_path)
    done = call("ensdistill-tune", "report", "nobody", "--studies-dir", tmp_path)
    assert (done.code, "no study in this folder" in done.err) == (2, True)


def test_a_damaged_file_is_named_in_the_error(tmp_path: Path) -> None:
    home = on_disk(facts(12), tmp_path / "damaged")
    (home / "confirmation.json").write_text("{")
    with pytest.raises(DataError, match=r"confirmation\.json: not valid JSON"):
        write_report(home)
