"""A machine that lacks the study folder, or has different versions, is reported before it trains."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from ensdistill.errors import MachineError
from ensdistill_tune.execution.ray_nodes import check_nodes, study_machine
from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import PROGRAMS
from tests.docs.documents import ROOT
from tests.end_to_end import chaos
from tests.servers import wait_until

RAY = str(Path(sys.executable).parent / "ray")
# Hides the folders up to `--` behind empty file systems, as on a machine that does not mount them.
WITHOUT = 'while [ "$1" != -- ]; do mount -t tmpfs tmpfs "$1" || exit 1; shift; done; shift; cd /; exec "$@"'
FIND = "from importlib.util import find_spec as f; print(*(f(n).origin for n in ('ensdistill', 'ensdistill_tune')))"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def own_mounts() -> list[str]:
    """Returns the command that gives a process separate mounts; skips the test if that is not permitted."""
    for command in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        if shutil.which("unshare") and subprocess.run([*command, "true"], check=False).returncode == 0:
            return command
    pytest.skip("requires the right to mount a file system (unshare)")


@contextlib.contextmanager
def joined(cluster: Cluster, hidden: Sequence[Path], environment: dict[str, str]) -> Iterator[None]:
    """Inside the block, the cluster has a second machine, which lacks these folders."""
    words = [*own_mounts(), "sh", "-c", WITHOUT, "sh", *map(str, hidden), "--", RAY, "start", "--block"]
    words += [f"--address={cluster.address}", "--num-cpus=1"]
    log = subprocess.DEVNULL
    machine = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        machine.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            machine.wait(timeout=40)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(machine.pid, signal.SIGKILL)


def test_a_machine_without_the_study_folder_or_with_another_torch_version_trains_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "torch-9.9.dist-info").mkdir()
    (tmp_path / "torch-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    other = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    settings = chaos.STUDY.replace("max_concurrent: 1, ", "").replace("epochs: 27", "epochs: 300")
    (tmp_path / "mine.yaml").write_text(settings)  # long enough for a machine to join
    launch = [*PROGRAMS["ensdistill-tune"], "launch", str(tmp_path / "mine.yaml")]
    launch += ["--studies-dir", str(tmp_path / "studies"), "--name"]
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    early = subprocess.Popen([*launch, "early"], env=environment, **pipes)
    folder = StudyDirectory(tmp_path / "studies" / "early")
    wait_until(lambda: early.poll() is not None or bool(folder.read_trials()), "the first trial", 200)
    with joined(cluster, [tmp_path / "studies"], other):
        _, error = early.communicate(timeout=200)
        late = subprocess.run([*launch, "late"], env=environment, capture_output=True, text=True, check=False)
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


def test_a_machine_without_the_package_is_refused_unless_the_package_is_in_the_runtime_environment(
    cluster: Cluster, tmp_path: Path
) -> None:
    carried = [ROOT / "ensdistill", ROOT / "tune" / "ensdistill_tune"]
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-c", FIND], cwd="/", env=elsewhere, capture_output=True, text=True, check=True
    )
    hidden = {*carried, *(Path(file).parent for file in found.stdout.split())}
    with joined(cluster, sorted(hidden), dict(os.environ)):
        for carries in ({}, {"py_modules": [str(path) for path in carried]}):
            ray.init(address=cluster.address, runtime_env=carries, log_to_driver=False)
            try:
                wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2, "the second machine", 120)
                with study_machine(tmp_path) as wanted:
                    if carries:
                        check_nodes(wanted)
                    else:
                        with pytest.raises(MachineError, match=r"on machine .* ensdistill must be .*not installed"):
                            check_nodes(wanted)
            finally:
                ray.shutdown()
