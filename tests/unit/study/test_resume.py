"""An interrupted study continues as if it had not been interrupted, and a finished study can be extended."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import TestEvaluated, TrialEnded
from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import Done, call
from tests.tiny import TinyStudy


def resumed(studies: Path, *words: str) -> Done:
    return call("ensdistill-tune", "resume", "tiny", "--studies-dir", studies, "--executor", "inline", *words)


def rows(home: StudyDirectory) -> list[Any]:
    """Returns the trials of a study without times."""
    timeless = lambda last: {name: value for name, value in last.items() if not name.startswith("time/")}  # noqa: E731
    return [(trial.name, trial.state, timeless(trial.last)) for trial in home.read_trials()]


def test_resuming_a_finished_study_runs_nothing_and_prints_the_same_result(copy: Path, tiny: TinyStudy) -> None:
    before = StudyDirectory(copy / "tiny").read_trials()
    done = resumed(copy)
    assert done.code == 0, done.err
    assert StudyDirectory(copy / "tiny").read_trials() == before
    verdict = json.loads((tiny.home / "confirmation.json").read_text())["verdict"]
    assert verdict in " ".join(done.out.split())
    assert (copy / "tiny" / "best" / "config.yaml").exists()


def test_an_extended_study_does_not_evaluate_the_test_set_again_for_other_students(copy: Path) -> None:
    looks = [e for e in read_journal(copy / "tiny" / "events.jsonl") if isinstance(e, TestEvaluated)]
    assert len(looks) == 1
    done = resumed(copy, "--set", "budget.trials=10", "--set", "confirmation.seeds=3")
    assert done.code == 0, done.err
    trials = StudyDirectory(copy / "tiny").read_trials()
    assert sum(t.replicate_of is None and not t.baseline for t in trials) == 10
    assert {t.seed for t in trials if t.replicate_of is not None} == {1, 2, 3}
    assert "the test set was already evaluated for other students" in " ".join(done.out.split())
    kept = json.loads((copy / "tiny" / "confirmation.json").read_text())
    assert kept["test"] == []
    forced = resumed(copy, "--reevaluate-test")
    assert forced.code == 0, forced.err
    assert json.loads((copy / "tiny" / "confirmation.json").read_text())["test"]
    looks = [e for e in read_journal(copy / "tiny" / "events.jsonl") if isinstance(e, TestEvaluated)]
    assert len(looks) == 2


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("objective=val/accuracy", "--set objective: with this change, the trials of tiny would not be comparable"),
        ("config.training.epochs=9", "--set config: with this change, the trials of tiny would not be comparable"),
        ("budget.trails=9", "budget.trails: no such setting (did you mean trials?)"),
    ],
)
def test_changes_that_make_trials_incomparable_are_refused(copy: Path, change: str, fault: str) -> None:
    before = (copy / "tiny" / "events.jsonl").read_bytes()
    done = call("ensdistill-tune", "resume", "tiny", "--studies-dir", copy, "--set", change)
    assert done.code == 2
    assert fault in done.err
    assert (copy / "tiny" / "events.jsonl").read_bytes() == before


def test_a_recovered_study_repeats_the_lost_work_with_the_same_result(tiny: TinyStudy, tmp_path: Path) -> None:
    shutil.copytree(tiny.studies, tmp_path / "studies")
    home = StudyDirectory(tmp_path / "studies" / "tiny")
    before = rows(home)
    events = read_journal(home.journal)
    last = next(n for n, event in enumerate(events, 1) if isinstance(event, TrialEnded) and event.trial == 3)
    done = call("ensdistill-tune", "fsck", "tiny", "--studies-dir", tmp_path / "studies", "--to", last)
    assert done.code == 0, done.err
    assert len(home.read_trials()) < len(before)
    done = resumed(tmp_path / "studies")
    assert done.code == 0, done.err
    assert rows(home) == before


def test_a_missing_study_cannot_be_resumed(tmp_path: Path) -> None:
    done = call("ensdistill-tune", "resume", "nothing", "--studies-dir", tmp_path)
    assert done.code == 2
    assert "no study in this folder" in done.err


def test_two_processes_cannot_run_the_same_study(copy: Path) -> None:
    with StudyDirectory(copy / "tiny").held():
        done = resumed(copy)
    assert done.code == 2
    assert "another process is running this study" in done.err


def test_a_study_is_not_resumed_with_different_images(copy: Path) -> None:
    file = copy / "tiny" / "study.json"
    text = file.read_text()
    file.write_text(json.dumps(json.loads(text) | {"data_hash": "0123456789abcdef"}))
    done = resumed(copy)
    file.write_text(text)
    assert done.code == 2
    assert "the images must be the same as at the start of this study (0123456789abcdef" in done.err


def test_a_warm_start_first_tries_the_best_settings_of_an_earlier_study(copy: Path, tiny: TinyStudy) -> None:
    words = ["--set", "warm_start={study: tiny, top_k: 1}", "--set", "budget.trials=1", "--set", "baselines=[]"]
    words += ["--set", "confirmation.top_k=0", "--executor", "inline"]
    done = call("ensdistill-tune", "launch", tiny.file, "--studies-dir", copy, "--name", "warm", *words)
    assert done.code == 0, done.err
    (trial,) = StudyDirectory(copy / "warm").read_trials()
    earlier = [t for t in StudyDirectory(copy / "tiny").read_trials() if t.replicate_of is None and t.sampled]
    best = min((t for t in earlier if t.state == "finished"), key=lambda t: t.last["val/nll"])
    assert trial.sampled == best.sampled
