"""Paths in a file are relative to the file, and paths on the command line to the current folder. Hashes omit paths."""

import os
from pathlib import Path

import pytest
import torch

from ensdistill.config import build_config, load_config
from ensdistill.export.run_locator import default_folder
from ensdistill.runtime.weights import STUDENT_FILE, save_weights
from ensdistill.settings.paths import absolute, file_settings
from ensdistill_tune.study.loading import change_study, load_study
from ensdistill_tune.study.study_config import StudyConfig, study_files

NPZ = "data: {kind: npz, path: images.npz}\n"
STUDY = "search: {loss.temperature: {uniform: [1, 4]}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder that contains settings and is not the current folder."""
    (tmp_path / "here").mkdir()
    (tmp_path / "my [odd] folder").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "my [odd] folder"


def path_of(config: object) -> str:
    return str(getattr(config, "path", None))


def test_all_settings_that_contain_file_paths_are_found() -> None:
    known = {"config.data.path", "config.data.root", "config.teachers.checkpoints.*.path", "tracking.uri"}
    known |= {"config.teachers.predictions"}
    models = ("model", "teachers.model", "teachers.models.*", "teachers.checkpoints.*.model")
    known |= {f"config.{model}.weights" for model in models}
    named = study_files()
    assert known == {name for name in named if not name.startswith(("search.", "points_to_evaluate."))}
    assert {"search.model.choice.*.weights", "search.model.weights.grid.*"} <= named
    assert "model.path" not in file_settings(StudyConfig, "")


def test_a_path_in_a_file_is_relative_to_the_file(folder: Path) -> None:
    (folder / "c.yaml").write_text(NPZ)
    for name in (folder / "c.yaml", Path(os.path.relpath(folder / "c.yaml"))):
        assert path_of(load_config(name).data) == str(folder / "images.npz")


@pytest.mark.parametrize(
    "override", ["data.path=images.npz", "data={kind: npz, path: images.npz}", "data.path=../here/images.npz"]
)
def test_a_path_in_an_override_is_relative_to_the_current_folder(override: str, folder: Path) -> None:
    (folder / "c.yaml").write_text(NPZ)
    assert path_of(load_config(folder / "c.yaml", [override]).data) == str(Path.cwd() / "images.npz")


def test_paths_of_teacher_files_are_made_absolute(folder: Path) -> None:
    (folder / "c.yaml").write_text("teachers: {count: 1, checkpoints: [{path: a.pt}, {path: /b.pt}, {path: ~/c.pt}]}\n")
    paths = [file.path for file in load_config(folder / "c.yaml").teachers.checkpoints]
    assert paths == [str(folder / "a.pt"), "/b.pt", os.path.expanduser("~/c.pt")]


@pytest.mark.parametrize(
    "config", ["config: {data: {kind: npz, path: images.npz}}", "config: {data.kind: npz, data.path: images.npz}"]
)
def test_paths_in_a_study_file_are_relative_to_the_file(config: str, folder: Path) -> None:
    (folder / "s.yaml").write_text(f"{STUDY}{config}\ntracking: {{uri: 'sqlite:///mine.db'}}\n")
    study = load_study(folder / "s.yaml")
    assert path_of(study.base_config.data) == str(folder / "images.npz")
    assert study.tracking.uri == f"sqlite:///{folder}/mine.db"


def test_paths_among_the_searched_values_are_relative_to_the_study_file(folder: Path) -> None:
    block = "search: {model: {choice: [{kind: convnet}, {kind: resnet, weights: r.pt}]}}\npreset: kd\n"
    (folder / "block.yaml").write_text(block)
    assert load_study(folder / "block.yaml").search["model"].values[1]["weights"] == str(folder / "r.pt")
    alone = "search: {model.weights: {grid: [a.pt, /b.pt]}}\npoints_to_evaluate: [{model.weights: a.pt}]\npreset: kd\n"
    (folder / "alone.yaml").write_text(alone)
    study = load_study(folder / "alone.yaml")
    assert study.search["model.weights"].values == [str(folder / "a.pt"), "/b.pt"]
    assert study.points_to_evaluate == [{"model.weights": str(folder / "a.pt")}]
    changed = change_study(study, ["search.model.weights.grid=[c.pt]", "points_to_evaluate=[]"])
    assert changed.search["model.weights"].values == [str(Path.cwd() / "c.pt")]


def test_paths_in_a_study_override_are_relative_to_the_current_folder(folder: Path) -> None:
    (folder / "s.yaml").write_text(f"{STUDY}config: {{data: {{kind: npz, path: images.npz}}}}\n")
    study = load_study(folder / "s.yaml", ["config.data.path=other.npz", "tracking.uri=sqlite:///x.db"])
    assert path_of(study.base_config.data) == str(Path.cwd() / "other.npz")
    assert study.tracking.uri == f"sqlite:///{Path.cwd()}/x.db"
    assert change_study(study, ["tracking.uri=sqlite:///y.db"]).tracking.uri == f"sqlite:///{Path.cwd()}/y.db"


@pytest.mark.parametrize(
    "uri", ["http://h/x", "sqlite:////abs.db", "sqlite:///:memory:", "postgresql://h/x", "sqlite://"]
)
def test_uris_of_other_stores_are_unchanged(uri: str) -> None:
    assert absolute({"tracking": {"uri": uri}}, "/f", study_files()) == {"tracking": {"uri": uri}}


def test_a_tilde_with_an_unknown_user_is_not_expanded(folder: Path) -> None:
    (folder / "c.yaml").write_text("data: {kind: npz, path: ~no-such-user/x.npz}\n")
    assert path_of(load_config(folder / "c.yaml").data) == str(folder / "~no-such-user/x.npz")


def test_parent_folder_components_after_a_link_are_kept_in_a_path(folder: Path) -> None:
    (folder / "far" / "deep").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "far" / "deep")
    assert absolute({"data": {"path": "link/../x"}}, folder, file_settings(type(build_config({})))) == {
        "data": {"path": f"{folder}/link/../x"}
    }


def test_paths_do_not_affect_hashes() -> None:
    def config(**more: object) -> object:
        tree = {"data": {"kind": "npz", "path": "/a.npz"}, "teachers": {"count": 1, "checkpoints": [{"path": "/t.pt"}]}}
        return build_config(tree, more)

    moved = {"data.path": "/b.npz", "teachers.checkpoints": [{"path": "/elsewhere/t.pt"}]}
    assert config().hash == config(**moved).hash  # type: ignore[attr-defined]
    assert config().hash != config(**{"data.seed": 1}).hash  # type: ignore[attr-defined]
    other = {"teachers.checkpoints": [{"path": "/t.pt", "mean": [0.5], "std": [0.5]}]}
    assert config().hash != config(**other).hash  # type: ignore[attr-defined]
    imported = [build_config({"model": {"kind": "custom", "path": name}}).hash for name in ("a:B", "a:C")]
    assert len(set(imported)) == 2  # the import path of a model is not a file path


def test_runs_with_the_same_settings_on_different_images_have_separate_folders(tmp_path: Path) -> None:
    config = build_config({"data": {"kind": "npz", "path": "/a.npz"}})
    first = default_folder(tmp_path, config)
    assert first == tmp_path / "runs" / config.hash == default_folder(tmp_path, config, "images")
    save_weights(first / STUDENT_FILE, torch.nn.Linear(1, 1), {"data": "images"})
    assert default_folder(tmp_path, config, "images") == first
    assert default_folder(tmp_path, config, "others") not in (first, default_folder(tmp_path, config, "more"))
