"""A real Ray cluster of two nodes on this machine, one of which joins or is lost during a study."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import PROGRAMS
from tests.end_to_end import chaos
from tests.servers import wait_until


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster started by `ray start` that requires a token; yields the environment for connecting to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    environment = os.environ | {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=1", "--include-dashboard=false"]
    log = subprocess.DEVNULL
    head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    wait_until(lambda: answers(port), "the head of the cluster", 60)
    yield environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
    os.killpg(head.pid, signal.SIGTERM)
    head.wait(timeout=60)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_study_runs_in_a_cluster_that_requires_a_token(guarded: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "guarded.yaml"
    file.write_text(chaos.STUDY.replace("trials: 12", "trials: 1"))
    command = [*PROGRAMS["ensdistill-tune"], "launch", str(file), "--studies-dir", str(tmp_path / "studies")]
    done = subprocess.run(command, env=guarded, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    del guarded["RAY_AUTH_MODE"]
    lost = subprocess.run(command, env=guarded, capture_output=True, text=True, check=False)
    assert (lost.returncode, "set RAY_AUTH_MODE=token" in lost.stderr) == (2, True)


@pytest.mark.parametrize("both", ["train", "train, or are about to begin"])
def test_a_study_survives_the_loss_of_a_machine(both: str, cluster: Cluster, tmp_path: Path) -> None:
    """In the first case the machine joins during the study. In the second, each teacher waits for the other."""
    settings = chaos.STUDY.replace("max_concurrent: 1, ", "").replace("trials: 12", "trials: 8")
    if both != "train":
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        (tmp_path / "meeting").mkdir()
        path, where = "tests.integration.ray.misbehaving:one_of_two_workers", tmp_path / "meeting"
        either = f"{{kind: custom, path: '{path}', arguments: {{meeting: '{where}'}}}}"
        settings = settings.replace("{count: 2, model: {width: 4},", f"{{count: 2, models: [{either}, {either}],")
    file, home = tmp_path / "cluster.yaml", tmp_path / "studies" / "cluster"
    file.write_text(settings)
    command = [*PROGRAMS["ensdistill-tune"], "launch", str(file), "--studies-dir", str(tmp_path / "studies")]
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    with (tmp_path / "output").open("w") as output:
        study = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    folder = StudyDirectory(home)

    def is_time() -> bool:
        trials = folder.read_trials()
        epochs = [len(trial.epochs) for trial in trials if trial.state == "running"]
        return len(epochs) == 2 and (all(epochs) if both == "train" else len(trials) > 2 and not all(epochs))

    if both == "train":
        wait_until(lambda: study.poll() is not None or bool(folder.read_trials()), "a trial", 240)
        second = cluster.add_node(num_cpus=1)
    wait_until(lambda: study.poll() is not None or is_time(), "a trial on each machine", 240, every=0.005)
    cluster.remove_node(second, allow_graceful=False)
    study.wait(timeout=240)
    assert study.returncode == 0, (tmp_path / "output").read_text()
    trials = folder.read_trials()
    assert {trial.state for trial in trials} <= {"finished", "pruned"}
    assert sum(trial.replicate_of is None for trial in trials) == 8 + 1
    for trial in trials:
        assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
    assert json.loads((home / "study.json").read_text())["state"] == "finished"
