"""A real Ray cluster of two machines (both on this one), of which one is lost in mid-study."""

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

from ensdistill_tune.agenda import Agenda
from ensdistill_tune.executor import Reports
from ensdistill_tune.progress import Progress
from ensdistill_tune.record import StudyFolder
from ensdistill_tune.runner import _Ends, _last_line
from ensdistill_tune.space import Study
from tests.end_to_end import chaos
from tests.servers import wait_until


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster begun by `ray start` that asks for a token; how to come to it."""
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


def test_a_study_runs_in_a_cluster_that_asks_for_a_token(guarded: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "guarded.yaml"
    file.write_text(chaos.STUDY.replace("trials: 12", "trials: 1"))
    command = [sys.executable, "-m", "ensdistill_tune.cli", "launch", str(file), "--studies", str(tmp_path / "studies")]
    done = subprocess.run(command, env=guarded, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    del guarded["RAY_AUTH_MODE"]
    lost = subprocess.run(command, env=guarded, capture_output=True, text=True, check=False)
    assert (lost.returncode, "set RAY_AUTH_MODE=token" in lost.stderr) == (2, True)


@pytest.mark.parametrize("both", ["train", "train, or are about to begin"])
def test_a_study_outlives_the_loss_of_a_machine(both: str, cluster: Cluster, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    settings = chaos.STUDY.replace("concurrency: 1, ", "").replace("trials: 12", "trials: 8")
    file, home = tmp_path / "cluster.yaml", tmp_path / "studies" / "cluster"
    file.write_text(settings)
    command = [sys.executable, "-m", "ensdistill_tune.cli", "launch", str(file), "--studies", str(tmp_path / "studies")]
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    with (tmp_path / "output").open("w") as output:
        study = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    folder = StudyFolder(home)

    def is_time() -> bool:
        trials = folder.read_trials()
        epochs = [len(trial.epochs) for trial in trials if trial.state == "running"]
        return len(epochs) == 2 and (all(epochs) if both == "train" else len(trials) > 2 and not all(epochs))

    wait_until(lambda: study.poll() is not None or is_time(), "a trial on each machine", 120, every=0.005)
    cluster.remove_node(second, allow_graceful=False)
    study.wait(timeout=240)
    assert study.returncode == 0, (tmp_path / "output").read_text()
    trials = folder.read_trials()
    assert {trial.state for trial in trials} <= {"finished", "pruned"}
    assert sum(trial.confirms is None for trial in trials) == 8 + 1
    for trial in trials:
        assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
    assert json.loads((home / "study.json").read_text())["state"] == "finished"


class InRay:
    """As much of a trial of Ray's as who hears of its end looks at; it loses its process as it is about to begin."""

    status = ERROR = "ERROR"
    error_file: Path | None = None

    def __init__(self, number: int, trial_id: str = "first") -> None:
        self.config = {"number": number}
        self.trial_id = trial_id

    def should_recover(self) -> bool:
        return True


@pytest.mark.parametrize("retries", [0, 2])
def test_a_trial_that_loses_its_process_before_it_begins_is_begun_again_as_often_as_it_may(
    retries: int, tmp_path: Path
) -> None:
    space = {"preset": "kd", "search": {"training.lr": {"uniform": [0.1, 0.2]}}, "baselines": ["kd"]}
    study = Study.model_validate(space | {"trial": {"retries": retries}})
    agenda = Agenda(Progress(study, StudyFolder(tmp_path), {}), slots=1)
    ends, begun, lost = _Ends(Reports(agenda)), 0, list[InRay]()
    while isinstance(suggestion := agenda.next(), dict) and suggestion["number"] == 1:
        begun += 1
        lost.append(InRay(1, f"{begun}"))
        ends.on_step_end(0, lost[:-1])  # Ray shows those that it gave up again at every turn
        assert agenda.progress.trials[1].state == "running"
        ends.on_trial_error(0, [], lost[-1])
    assert begun == 1 + retries
    trial = agenda.progress.trials[1]
    assert (trial.state, trial.error) == ("failed", "the worker process died")


def test_a_trial_that_is_over_is_not_begun_again_when_its_process_dies(tmp_path: Path) -> None:
    space = {"preset": "kd", "search": {"training.lr": {"uniform": [0.1, 0.2]}}, "baselines": ["kd"]}
    agenda = Agenda(Progress(Study.model_validate(space), StudyFolder(tmp_path), {}), slots=1)
    agenda.next()
    agenda.end(1, "pruned")
    _Ends(Reports(agenda)).on_trial_error(0, [], InRay(1))
    assert agenda.progress.trials[1].state == "pruned"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ray.exceptions.ActorDiedError: The actor died: its worker process has died.", "it crashed, or was killed"),
        ("The actor a1 is unavailable: The actor is temporarily unavailable: Rpc", "could not be reached any more"),
        ("ensdistill.errors.DataError: disk full", "DataError: disk full"),
    ],
)
def test_what_ray_says_of_a_lost_trial_is_told_in_plain_words(line: str, words: str, tmp_path: Path) -> None:
    trial = InRay(1)
    assert _last_line(trial) == "the worker process died"
    trial.error_file = tmp_path / "error.txt"
    trial.error_file.write_text(f"Traceback\n  somewhere\n{line}\n\n")
    assert words in _last_line(trial)
