"""Training reproduces the recorded teachers; if it does not, `TEACHER_RECIPE_VERSION` must be increased.

A store finds teachers by settings, data and `TEACHER_RECIPE_VERSION`. After a change to the training computation,
increase the version by one and record the weights again: `python tests/unit/core/training/test_teacher_recipe.py`.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ensdistill.config import load_config
from ensdistill.data import load_data
from ensdistill.runtime.weights import fingerprint
from ensdistill.training.teachers import TEACHER_RECIPE_VERSION, teacher_hash, train_teacher

STORED = Path(__file__).with_suffix(".json")
SETTINGS = (
    "data.train_size=40",
    "data.val_size=20",
    "teachers.count=1",
    "teachers.model.width=4",
    "teachers.model.blocks=2",
    "teachers.training.epochs=2",
    "teachers.training.batch_size=10",
)
REMEDY = f"the same settings train another teacher now: raise TEACHER_RECIPE_VERSION and run {STORED.stem}.py"


def machine() -> dict[str, str]:
    """Returns properties of this machine that affect the last digits of a training."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = names[0] if names else platform.processor()
    return {"cpu": cpu, "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).exists() else []


def trained(store: Path) -> dict[str, Any]:
    """Returns statistics of one teacher trained here."""
    config = load_config("kd", SETTINGS)
    data = load_data(config.data)
    list(train_teacher(config, 0, data, store))
    file = store / teacher_hash(config, 0, data) / "network.safetensors"
    weights = load_file(file)
    figures = {
        name: [round(float(t.double().mean()), 6), round(float(t.double().norm()), 6)] for name, t in weights.items()
    }
    return {
        "version": TEACHER_RECIPE_VERSION,
        "machine": machine(),
        "weights": fingerprint(file),
        "mean_and_norm": figures,
    }


def test_a_teacher_has_the_weights_recorded_for_its_recipe_version(tmp_path: Path) -> None:
    stored, now = json.loads(STORED.read_text()), trained(tmp_path)
    assert now["version"] == stored["version"], f"figures of another version: run {STORED.stem}.py"
    assert now["mean_and_norm"].keys() == stored["mean_and_norm"].keys(), REMEDY
    for name, figures in stored["mean_and_norm"].items():
        assert now["mean_and_norm"][name] == pytest.approx(figures, rel=1e-3, abs=1e-4), f"{name}: {REMEDY}"
    if now["machine"] == stored["machine"]:  # on other machines, the last digits differ
        assert now["weights"] == stored["weights"], REMEDY


def test_different_recipe_versions_give_different_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("kd", SETTINGS)
    data = load_data(config.data)
    before = teacher_hash(config, 0, data)
    monkeypatch.setattr("ensdistill.training.teachers.TEACHER_RECIPE_VERSION", TEACHER_RECIPE_VERSION + 1)
    assert teacher_hash(config, 0, data) != before


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        new = trained(Path(folder))
    old = json.loads(STORED.read_text()) if STORED.exists() else {}
    if old.get("version") == new["version"] and old["machine"] == new["machine"] and old["weights"] != new["weights"]:
        sys.exit(REMEDY)
    STORED.write_text(json.dumps(new, indent=2) + "\n")
