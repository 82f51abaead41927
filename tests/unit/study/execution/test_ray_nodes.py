"""Requirements for the machines of a cluster, checked without a cluster: the probe runs in this process."""

import importlib.util
from pathlib import Path

import pytest

from ensdistill_tune.execution import node_probe
from ensdistill_tune.execution.node_probe import NOT_INSTALLED, probe, versions
from ensdistill_tune.execution.ray_nodes import StudyMachine, _problems

MINE = {"Python": "3.11", "torch": "2.11.0", "ensdistill": "0.1.0 (source 0123)"}


@pytest.fixture
def wanted(tmp_path: Path) -> StudyMachine:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "token").touch()
    return StudyMachine(tmp_path / "study", "token", "node", MINE)


def test_no_problem_is_found_and_no_file_is_left_on_a_machine_with_the_same_folder_and_versions(
    wanted: StudyMachine,
) -> None:
    found = probe(str(wanted.folder), "token", "answer")
    assert _problems(wanted, MINE | {"folder": found["folder"]}, "answer") == []
    assert [file.name for file in wanted.folder.iterdir()] == ["token"]


@pytest.mark.parametrize(
    ("name", "theirs", "fix"),
    [
        ("torch", "2.10.0", "Install the same version on both."),
        ("ensdistill", "0.1.0 (source 4567)", "Install the same version on both."),
        ("Python", "3.12", "Install the same version on both."),
        ("ensdistill", NOT_INSTALLED, "Install it there."),
    ],
)
def test_the_error_about_a_different_version_states_both_versions_and_the_fix(
    name: str, theirs: str, fix: str, wanted: StudyMachine
) -> None:
    (wanted.folder / "answer").touch()
    (problem,) = _problems(wanted, MINE | {name: theirs, "folder": ""}, "answer")
    rule = f"{name} must be {MINE[name]}, as on the machine that runs the study, got {theirs}"
    assert problem == f"{rule}. {fix}"


@pytest.mark.parametrize("case", ["no token", "no folder", "writes that do not arrive"])
def test_a_different_file_system_under_the_same_path_is_detected(
    case: str, wanted: StudyMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_probe, "PATIENCE_SECONDS", 0.0)
    (tmp_path / "theirs").mkdir()
    there = {"no token": tmp_path / "theirs", "no folder": tmp_path / "nothing"}.get(case, wanted.folder)
    found = probe(str(there), "token", "answer")["folder"]
    (wanted.folder / "answer").unlink(missing_ok=True)
    (problem,) = _problems(wanted, MINE | {"folder": found}, "answer")
    rule = "does not exist there" if case == "no folder" else "is a different folder there"
    assert problem.startswith(f"{wanted.folder} {rule}")
    assert problem.endswith("Set --studies-dir to a folder that all machines share under the same path.")


def test_the_package_version_depends_on_the_source_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ensdistill", "ensdistill_tune"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "ensdistill" / "version.py").write_text('"""Text."""\n\n__version__ = "7.1"\n')

    def found(name: str) -> object:
        return importlib.util.spec_from_file_location(
            name, tmp_path / name / "__init__.py", submodule_search_locations=[str(tmp_path / name)]
        )

    monkeypatch.setattr(importlib.util, "find_spec", found)
    before = versions()["ensdistill"]
    assert before.startswith("7.1 (source ")
    assert versions()["ensdistill"] == before
    (tmp_path / "ensdistill_tune" / "__init__.py").write_text("x = 1\n")
    assert versions()["ensdistill"] != before
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert versions()["ensdistill"] == NOT_INSTALLED
