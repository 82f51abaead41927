"""The installed package: its import names, and its wheel in a separate environment."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from ensdistill_tune.study.provenance import git_commit

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = Path(torch.__file__).parents[1]
SPACE = """
preset: kd
config:
  data: {kind: digits, train_size: 60, val_size: 100}
  model: {width: 4}
  teachers: {count: 1, model: {width: 4}, training: {epochs: 1}}
  training: {epochs: 1}
search:
  training.optimizer.lr: {log_uniform: [0.01, 0.1]}
searcher: {kind: random}
scheduler: {kind: none}
budget: {trials: 2}
confirmation: {top_k: 0}
"""


def run(*words: str | Path, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command with only the installed packages and those on the given path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
    )


@pytest.mark.parametrize("command", [["ensdistill-tune"], ["python", "-m", "ensdistill_tune"]], ids=" ".join)
def test_a_user_module_named_tune_is_not_executed(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "tune.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    (tmp_path / "space.yaml").write_text(SPACE)
    program = Path(sys.executable).parent / command[0]
    done = run(program, *command[1:], "check", "space.yaml", "--no-estimate", "--json", cwd=tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["torch", "rich", "numpy", "random"])
@pytest.mark.parametrize("words", [["ensdistill", "teachers", "kd"], ["ensdistill-tune", "export", "x"]], ids=" ".join)
def test_a_module_that_shadows_a_dependency_is_named_in_the_error(words: list[str], name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("VALUE = 1\n")
    done = run(Path(sys.executable).parent / words[0], *words[1:], cwd=tmp_path, path=tmp_path)
    assert done.returncode == 2, done.stdout
    assert all(line.startswith("error: ") for line in done.stderr.splitlines()), done.stderr
    assert f"{tmp_path / name}.py: has the same name as the module {name} and is imported instead of it" in done.stderr


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Returns the files of this repository that git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [file for file in done.stdout.splitlines() if (ROOT / file).exists()]


def test_a_study_records_the_git_commit_of_this_source_tree(files: list[str]) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert files
    assert (git_commit() or "").removesuffix("-dirty") == head.stdout.strip()


@pytest.fixture(scope="module")
def wheel(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `make wheel` builds from these files."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for file in files:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, source / file)
    made = run("make", "-o", ".venv/.ready", "wheel", f"SOURCE={source}", f"DIST={dist}", cwd=ROOT)
    assert made.returncode == 0, made.stdout + made.stderr
    (file,) = dist.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program folder of an environment that contains the wheel, with the dependencies of the test environment."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{SITE_PACKAGES}\n")  # not editable: .pth files there are ignored
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", home / "bin/python", wheel], check=True)
    return home / "bin"


def test_the_wheel_contains_exactly_the_files_of_both_packages(wheel: Path, files: list[str]) -> None:
    expected = {file.removeprefix("tune/") for file in files if file.startswith(("ensdistill/", "tune/"))}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {"ensdistill/py.typed", "ensdistill_tune/py.typed", "ensdistill/presets/kd.yaml"} <= held


def test_the_installed_files_equal_those_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    program = "import ensdistill, ensdistill_tune; print(ensdistill.__file__); print(ensdistill_tune.__file__)"
    done = run(installed / "python", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(installed.parent)) for line in done.stdout.splitlines())


@pytest.mark.parametrize("command", ["ensdistill", "ensdistill-tune"])
def test_the_installed_commands_print_their_help(command: str, installed: Path, tmp_path: Path) -> None:
    done = run(installed / command, "--help", cwd=tmp_path)
    assert (done.returncode, f"usage: {command}" in done.stdout, done.stderr) == (0, True, "")


def test_the_installed_command_runs_a_two_trial_study_with_the_inline_executor_and_without_ray(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "ray.py").write_text("raise ImportError('the inline executor imports no Ray')\n")
    words = ("launch", "space.yaml", "--executor", "inline", "--json")
    done = run(installed / "ensdistill-tune", *words, cwd=tmp_path, path=tmp_path / "path")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["counts"]) == ("finished", {"finished": 2})
    assert (tmp_path / "studies" / "space" / "report.html").exists()
