"""A study on real Ray gives the same results as the inline executor; failures that are possible only on Ray."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ensdistill.config import load_config
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import SessionEnded, SessionStarted, TeachersReady
from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import call, process
from tests.tiny import TINY, TinyStudy


def story(home: Path) -> list[dict[str, Any]]:
    """Returns all events of trials and of the test evaluation, in order, without times."""
    others = (SessionStarted, TeachersReady, SessionEnded)
    events = [e for e in read_journal(home / "events.jsonl") if not isinstance(e, others)]
    told = [event.model_dump(exclude={"at"}) for event in events]
    for event in told:
        for name in [name for name in event.get("metrics", {}) if name.endswith("_seconds")]:
            del event["metrics"][name]
    return told


def leaderboard(home: Path) -> list[dict[str, str]]:
    """Returns the rows of leaderboard.csv without hours, which are measured times."""
    rows = csv.DictReader((home / "leaderboard.csv").open())
    return [{name: value for name, value in row.items() if not name.endswith("_hours")} for row in rows]


def test_a_study_with_one_slot_gives_the_same_results_with_both_executors(tiny: TinyStudy, tmp_path: Path) -> None:
    done = process("ensdistill-tune", "launch", tiny.file, "--studies-dir", tmp_path)
    assert done.code == 0, done.err
    assert story(tmp_path / "tiny") == story(tiny.home)
    assert leaderboard(tmp_path / "tiny") == leaderboard(tiny.home)
    assert (tmp_path / "tiny" / "confirmation.json").read_bytes() == (tiny.home / "confirmation.json").read_bytes()
    assert load_config(tmp_path / "tiny" / "best" / "config.yaml") == load_config(
        tiny.home / "best" / "config.yaml"
    )  # comments contain paths
    mine, theirs = (load_file(home / "best" / "student.safetensors") for home in (tmp_path / "tiny", tiny.home))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert not (tmp_path / "tiny" / "ray").exists()  # no Ray process is left
    assert len(story(tiny.home)) > 50  # the compared events are not trivial


def test_a_trial_whose_process_is_not_released_fails_but_the_study_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_FUNCTION_THREAD_TIMEOUT_S", "0")  # no process ends this quickly
    file = tmp_path / "busy.yaml"
    file.write_text(
        "preset: kd\nconfig:\n  data: {kind: digits, train_size: 60, val_size: 100}\n  model: {width: 4}\n"
        "  teachers: {count: 1, model: {width: 4}, training: {epochs: 1}}\n  training: {epochs: 1}\n"
        "search:\n  training.optimizer.lr: {log_uniform: [0.01, 0.1]}\nbudget: {trials: 4}\nconfirmation: {top_k: 0}\n"
        "resources: {max_concurrent: 1}\n"
    )
    done = process("ensdistill-tune", "launch", file, "--studies-dir", tmp_path, "--json")
    assert done.code == 0, done.err
    trials = StudyDirectory(tmp_path / "busy").read_trials()
    failed = [trial.error for trial in trials if trial.state == "failed"]
    assert [trial.state for trial in trials if trial.state != "failed"] == ["finished"] * (4 - len(failed))
    assert failed
    assert all("was still busy with the previous trial" in (error or "") for error in failed)


def test_a_study_that_requires_more_resources_than_any_machine_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "greedy.yaml"
    file.write_text(TINY)
    done = call("ensdistill-tune", "launch", file, "--studies-dir", tmp_path, "--set", "resources.gpus=64")
    assert done.code == 2
    assert "exceed the resources of every machine" in done.err
    assert not (tmp_path / "greedy").exists()


def test_running_trials_are_interrupted_when_the_time_budget_is_spent(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text(TINY.replace("trials: 8", "trials: 8, minutes: 0.05").replace("epochs: 6", "epochs: 5000"))
    done = process("ensdistill-tune", "launch", file, "--studies-dir", tmp_path, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["state"] == "timed_out"
    assert [trial.state for trial in StudyDirectory(tmp_path / "short").read_trials()] == ["interrupted"]
