"""What breaks while a study runs: a worker that is killed, the study that is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.commands import process
from tune.record import StudyFolder

SLOW = """
preset: kd
config:
  data: {kind: digits, train: 100, validation: 100}
  model: {width: 4}
  teachers: {count: 2, model: {width: 4}, training: {epochs: 2}}
  training: {epochs: 150, batch_size: 10}
search:
  transfer.temperature: {uniform: [1, 4]}
searcher: {kind: random}
scheduler: {kind: none}
budget: {trials: 2}
confirm: {best: 0}
trial: {checkpoint_seconds: 0.5}
"""


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A running study of two trials of some seconds, in a process of its own."""
    file = tmp_path / "slow.yaml"
    file.write_text(SLOW)
    arguments = [sys.executable, "-m", "tune.cli", "launch", str(file), "--studies", str(tmp_path / "studies")]
    study = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield study, tmp_path
    study.kill()


def workers(root: int) -> list[int]:
    """The processes below one that train a trial at the moment, by the title that Ray gives them."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:
                continue
    below, found = [root], []
    while below:
        parent = below.pop()
        children = [pid for pid, its in parents.items() if its == parent]
        below += children
        found += [pid for pid in children if titles[pid].startswith("ray::") and ".train" in titles[pid]]
    return found


def wait_for(condition: Any, seconds: float = 60) -> Any:
    """The first true value of the condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def test_a_killed_worker_costs_nothing_but_time(launched: tuple[subprocess.Popen[str], Path]) -> None:
    study, folder = launched
    home = folder / "studies" / "slow"
    wait_for(lambda: list(home.glob("trials/*/checkpoint.pt")))
    os.kill(wait_for(lambda: workers(study.pid))[0], signal.SIGKILL)
    output, _ = study.communicate(timeout=120)
    assert study.returncode == 0, output
    trials = StudyFolder(home).read_trials()
    assert [trial.state for trial in trials] == ["finished", "finished"]
    assert all([epoch["epoch"] for epoch in trial.epochs] == list(range(1, 151)) for trial in trials)
    (folder / "best.yaml").write_text((home / "best.yaml").read_text())
    again = process("ensdistill", "distill", folder / "best.yaml", "--json", "--studies", folder / "studies")
    best = json.loads((home / "study.json").read_text())["best"]["metrics"]
    assert json.loads(again.out)["val"]["nll"] == best["val/nll"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_study_closes_all_its_runs(
    launched: tuple[subprocess.Popen[str], Path], number: signal.Signals
) -> None:
    study, folder = launched
    home = folder / "studies" / "slow"
    wait_for(lambda: list(home.glob("trials/*/checkpoint.pt")))
    study.send_signal(number)
    output, _ = study.communicate(timeout=120)
    assert study.returncode == 130, output
    assert "INTERRUPTED" in output
    summary = json.loads((home / "study.json").read_text())
    assert summary["state"] == "interrupted"
    client = MlflowClient(summary["tracking_uri"])
    experiment = client.get_experiment_by_name("ensdistill").experiment_id
    runs = client.search_runs([experiment])
    assert len(runs) == 1 + len(StudyFolder(home).read_trials())
    assert {run.info.status for run in runs} == {"KILLED"}
