"""Commands and workers change the environment of their process; imports and library calls do not."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ensdistill.runtime.randomness import temporary_numpy_seed
from ensdistill_tune.execution import environment, ray_trainable, teacher_tasks
from ensdistill_tune.execution.environment import DEFAULTS, configure_process, environment_variable

ROOT = Path(__file__).parents[3]
LIBRARIES = ("mlflow", "onnxruntime", "optuna", "plotly", "ray.tune", "scipy.stats", "sklearn", "torchvision")


def printed_by(program: str) -> str:
    """Returns the output of a new process in which none of the variables is set."""
    clean = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules() -> list[str]:
    """Returns the names of all modules of both packages."""
    files = [(root, file) for root in (ROOT, ROOT / "tune") for file in root.glob("ensdistill*/**/*.py")]
    names = {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for root, file in files}
    return sorted(names)


def test_importing_any_module_does_not_change_the_environment() -> None:
    # libraries are imported first: their changes, such as KMP_* of scikit-learn, are excluded
    changed = printed_by(
        "import importlib, json, os\n"
        f"for name in {LIBRARIES!r}: importlib.import_module(name)\n"
        "changed, before = {}, dict(os.environ)\n"
        f"for name in {modules()!r}:\n"
        "    importlib.import_module(name)\n"
        "    if dict(os.environ) != before:\n"
        "        changed[name], before = sorted(set(os.environ.items()) ^ set(before.items())), dict(os.environ)\n"
        "print(json.dumps(changed))"
    )
    assert len(modules()) > 100
    assert json.loads(changed) == {}


def test_the_command_configures_its_process_before_importing_ray_or_mlflow() -> None:
    values = printed_by(
        "import contextlib, io, json, os, sys\n"
        "from ensdistill_tune.cli.main import main\n"
        "assert not {'ray', 'mlflow'} & set(sys.modules)\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['schema'])\n"
        f"print(json.dumps({{name: os.environ[name] for name in {list(DEFAULTS)!r}}}))"
    )
    assert json.loads(values) == DEFAULTS


def test_an_environment_variable_set_by_the_user_keeps_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "RAY_memory_monitor_refresh_ms"
    monkeypatch.setenv(name, "250")
    configure_process()
    assert os.environ[name] == "250"


def test_a_worker_configures_its_process_before_training_a_trial_or_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for module in (ray_trainable, teacher_tasks):
        monkeypatch.setattr(module, "configure_process", lambda: calls.append("configured"))
    monkeypatch.setattr(ray_trainable, "run_trial", lambda *_: calls.append("trial"))
    monkeypatch.setattr(teacher_tasks, "train_teacher", lambda *_: iter([calls.append("teacher")]))
    machine = type("Machine", (), {"check_this_machine": lambda self: calls.append("checked")})()
    ray_trainable.run_in_worker({}, None, machine)  # type: ignore[arg-type]
    shared = type("Shared", (), {"to": lambda self, device: None})()
    list(teacher_tasks._train(None, 0, shared, Path(), "cpu", 0))  # type: ignore[arg-type]
    assert calls == ["configured", "checked", "trial", "configured", "teacher"]


def test_only_processes_of_this_project_call_disable_malloc_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(environment, "disable_malloc_trim", lambda: calls.append(True))
    configure_process()
    assert calls == [True]
    library = [file for file in (ROOT / "ensdistill").rglob("*.py") if "disable_malloc_trim()" in file.read_text()]
    assert sorted(str(file.relative_to(ROOT / "ensdistill")) for file in library) == [
        "cli/main.py",
        "runtime/allocator.py",
    ]


def test_an_environment_variable_set_for_a_block_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNE_MAX_PENDING_TRIALS_PG", raising=False)
    for before in (None, "3"):
        with monkeypatch.context() as patch:
            if before is not None:
                patch.setenv("TUNE_MAX_PENDING_TRIALS_PG", before)
            with contextlib.suppress(KeyboardInterrupt), environment_variable("TUNE_MAX_PENDING_TRIALS_PG", "7"):
                assert os.environ["TUNE_MAX_PENDING_TRIALS_PG"] == "7"
                raise KeyboardInterrupt
            assert os.environ.get("TUNE_MAX_PENDING_TRIALS_PG") == before


def test_a_seeded_block_does_not_affect_the_global_generator_of_numpy() -> None:
    np.random.seed(5)
    expected = np.random.random(2).tolist()
    np.random.seed(5)
    first = np.random.random()
    with contextlib.suppress(KeyboardInterrupt), temporary_numpy_seed([1, 2]):
        seeded = np.random.random()
        raise KeyboardInterrupt
    assert [first, np.random.random()] == expected
    assert seeded == np.random.RandomState([1, 2]).random_sample()
