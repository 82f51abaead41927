"""Ray workers import pieces from the folder of the command; otherwise, a one-line error names the piece and node."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SPACE = """
preset: kd
config:
  data: {kind: digits, train_size: 60, val_size: 100}
  model: {width: 4}
  teachers: {count: 1, model: {width: 4}, training: {epochs: 1}}
  training: {epochs: 2}
search:
  loss.kind: {choice: ["my_losses:Mine"]}
  loss.strength: {uniform: [0, 2]}
searcher: {kind: random}
scheduler: {kind: none}
budget: {trials: 2}
confirmation: {top_k: 0}
"""
LOSS = """
from ensdistill.methods.losses import DistillationLoss
from ensdistill.settings.base import setting


class Mine(DistillationLoss):
    strength: float = setting(1.0, "How strong.", ge=0, le=3)

    def __call__(self, student, teachers, labels, on_labels):
        return self.strength * (student - teachers.mean(0)).square().mean()
"""
# As for an installed command, whose folder is the first entry of sys.path instead of the current folder.
COMMAND = """
import sys
sys.path[:] = [part for part in sys.path if part]
sys.path.extend(sys.argv[1:2])
from ensdistill_tune.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def launch(folder: Path, more: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tune")])}
    words = [sys.executable, "-c", COMMAND, more, "launch", "space.yaml", "--json"]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=280)


def test_driver_and_workers_import_modules_from_the_current_folder(folder: Path) -> None:
    (folder / "my_losses.py").write_text(LOSS)
    done = launch(folder)
    assert done.returncode == 0, done.stderr
    assert '"finished": 2' in done.stdout


def test_a_module_missing_on_a_worker_is_reported_in_one_line_with_the_machine_name(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "my_losses.py").write_text(LOSS)
    done = launch(folder, str(folder / "elsewhere"))
    assert done.returncode == 2, done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        f"error: loss.kind: on machine {socket.gethostname()}: 'my_losses:Mine' cannot be imported ("
    )
    assert not (folder / "studies" / "space").exists()
