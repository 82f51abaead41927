"""In a real study, a trial that needs more memory than is available fails alone."""

import json
from pathlib import Path

import pytest

from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import process

GREEDY = """
preset: kd
config:
  data: {kind: digits, train_size: 60, val_size: 100}
  model: {kind: custom, path: "tests.integration.ray.misbehaving:Greedy", arguments: {images: 30}}
  teachers: {count: 1, model: {kind: convnet, width: 2, blocks: 1}, training: {epochs: 1}}
  training: {epochs: 2}
search:
  training.batch_size: {choice: [20, 30]}
searcher: {kind: random, seed: 0}
scheduler: {kind: none}
budget: {trials: 4}
confirmation: {top_k: 0}
"""


def test_a_trial_that_runs_out_of_memory_fails_alone_and_the_error_states_the_required_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")  # Ray's memory monitor would kill all trials
    file = tmp_path / "greedy.yaml"
    file.write_text(GREEDY)
    done = process("ensdistill-tune", "launch", file, "--studies-dir", tmp_path / "studies", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["state"] == "finished"
    trials = StudyDirectory(tmp_path / "studies" / "greedy").read_trials()
    assert {(t.sampled["training.batch_size"], t.state) for t in trials} == {(20, "finished"), (30, "failed")}
    for error in (t.error or "" for t in trials if t.state == "failed"):
        assert "out of memory: the process used" in error
        assert "requested 1048576.0 GiB more" in error
        assert error.endswith("lower training.batch_size")
    assert list((tmp_path / "studies" / "greedy").glob("ray/*/error.txt")) == []  # not retried
