"""The plugin in tests/plugin is built, installed, used in a study and exported; its exported settings are run again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
SPACE = """
preset: kd
config:
  data: {kind: stripes, noise: 0.3}
  model: {kind: mlp, width: 16}
  teachers: {count: 2, model: {kind: mlp, width: 8}, training: {epochs: 2}}
  training: {epochs: 3, batch_size: 20}
  student: {kind: copies}
  averaging: {kind: median, window: 2}
  metrics: [{kind: label_probability}]
search:
  loss.kind: {choice: [focal]}
  loss.gamma: {uniform: [0, 5], when: {loss.kind: focal}}
  perturbation: {choice: [{kind: pixel_dropout, share: 0.2}]}
searcher: {kind: random}
scheduler: {kind: none}
budget: {trials: 2}
confirmation: {top_k: 1, seeds: 2}
"""
PLUGINS = ("loss", "perturbation", "metrics.0", "data", "model", "teachers.model", "student", "averaging")


def run(program: str, *words: str | Path, cwd: Path, site: Path | None) -> subprocess.CompletedProcess[str]:
    """Runs a command with this source tree and, if given, a folder of installed packages."""
    path = [str(ROOT), str(ROOT / "tune"), *([str(site)] if site else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    arguments = [sys.executable, "-m", program, *map(str, words)]
    return subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the plugin is installed."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "tests" / "plugin", source, ignore=shutil.ignore_patterns("__pycache__"))
    uv = [Path(sys.executable).parent / "uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*uv, "--python", sys.executable, "--target", target, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def study(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a completed and exported study that uses the pieces of the plugin."""
    home = tmp_path_factory.mktemp("study")
    (home / "space.yaml").write_text(SPACE)
    done = run("ensdistill_tune", "launch", "space.yaml", "--executor", "inline", "--json", cwd=home, site=site)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"finished": 2}
    done = run("ensdistill_tune", "export", "space", "--formats", "safetensors", "onnx", cwd=home, site=site)
    assert done.returncode == 0, done.stderr
    return home


def test_a_study_records_the_distribution_of_each_piece_and_the_custom_metric(study: Path) -> None:
    summary = json.loads((study / "studies/space/study.json").read_text())
    assert summary["plugins"] == dict.fromkeys(sorted(PLUGINS), "ensdistill-example 1.2.3")
    events = [json.loads(line) for line in (study / "studies/space/events.jsonl").read_text().splitlines()]
    reported = [event["metrics"] for event in events if "val/nll" in event.get("metrics", {})]
    assert reported
    assert all(0 < metrics["val/label_probability"] < 1 for metrics in reported)
    confirmation = json.loads((study / "studies/space/confirmation.json").read_text())
    assert all("label_probability" in row for subject in confirmation["test"] for row in subject["metrics"])


def test_the_exported_settings_train_the_same_student(study: Path, site: Path) -> None:
    exported = study / "studies/space/export/winner"
    done = run("ensdistill", "distill", exported / "config.yaml", "--out", study / "again", cwd=study, site=site)
    assert done.returncode == 0, done.stderr
    mine, again = (load_file(folder / "student.safetensors") for folder in (exported, study / "again"))
    assert mine.keys() == again.keys()
    assert all(mine[name].equal(again[name]) for name in mine)
    assert 0 < json.loads((study / "again/result.json").read_text())["val"]["label_probability"] < 1


def test_the_model_card_lists_the_packages_to_install(study: Path) -> None:
    card = (study / "studies/space/export/winner/MODEL_CARD.md").read_text()
    assert "These settings require code outside of ensdistill" in card
    assert "ensdistill-example 1.2.3" in card
    assert "label_probability" in card


def test_without_the_plugin_each_kind_that_it_provides_causes_a_one_line_error(study: Path) -> None:
    done = run("ensdistill_tune", "check", "space.yaml", "--no-estimate", cwd=study, site=None)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: space.yaml, line ") for line in lines), done.stderr
    assert any("loss.kind: 'focal' is not one of " in line for line in lines)
    assert any("data.kind: 'stripes' is not one of " in line for line in lines)


def test_a_study_cannot_be_resumed_with_a_different_plugin_version(study: Path, site: Path, tmp_path: Path) -> None:
    newer = shutil.copytree(site, tmp_path / "site")
    (about,) = newer.glob("ensdistill_example-*.dist-info")
    (about / "METADATA").write_text((about / "METADATA").read_text().replace("1.2.3", "1.2.4"))
    shutil.copytree(study, tmp_path / "study")
    words = ("resume", "space", "--set", "budget.trials=3", "--executor", "inline")
    done = run("ensdistill_tune", *words, cwd=tmp_path / "study", site=newer)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "the custom pieces must be the same as at the start of this study" in line
    assert "ensdistill-example 1.2.4" in line
