"""A machine that lacks the folder of a study, or has other versions, is named before it trains anything."""

import os
import shutil
import signal
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

RAY = str(Path(sys.executable).parent / "ray")
# A file system of its own at the path of the studies, as on a machine that mounts nothing there.
OTHER_FOLDER = 'mount -t tmpfs tmpfs "$0" && exec "$@"'


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def own_mounts() -> list[str]:
    """The command that gives a process its own file systems; skips the test where that is not allowed."""
    for command in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("needs the right to mount a file system (unshare)")


def test_a_machine_with_another_folder_or_other_versions_is_named_and_trains_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "torch-9.9.dist-info").mkdir()
    (tmp_path / "torch-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    other = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    (tmp_path / "mine.yaml").write_text(chaos.STUDY.replace("max_concurrent: 1, ", ""))
    launch = [*PROGRAMS["ensdistill-tune"], "launch", str(tmp_path / "mine.yaml")]
    launch += ["--studies-dir", str(tmp_path / "studies"), "--name"]
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    early = subprocess.Popen([*launch, "early"], env=environment, **pipes)
    folder = StudyDirectory(tmp_path / "studies" / "early")
    wait_until(lambda: early.poll() is not None or bool(folder.read_trials()), "the first trial", 120)
    join = [*own_mounts(), "sh", "-c", OTHER_FOLDER, str(tmp_path / "studies"), RAY, "start", "--block"]
    join += [f"--address={cluster.address}", "--num-cpus=1"]
    log = subprocess.DEVNULL
    machine = subprocess.Popen(join, env=other, stdout=log, stderr=log, start_new_session=True)
    try:
        _, error = early.communicate(timeout=200)
        late = subprocess.run([*launch, "late"], env=environment, capture_output=True, text=True, check=False)
    finally:
        os.killpg(machine.pid, signal.SIGTERM)
        machine.wait(timeout=60)
    assert early.returncode == 2, error
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "on machine" in lines[0]
    assert "torch must be" in lines[0]
    assert "ensdistill-tune resume early" in lines[-1]
    assert {trial.state for trial in folder.read_trials()} <= {"finished", "pruned", "interrupted"}
    assert late.returncode == 2
    assert f"{tmp_path}/studies/late does not exist there" in late.stderr
    assert "got 9.9" in late.stderr
    assert not (tmp_path / "studies" / "late").exists()
