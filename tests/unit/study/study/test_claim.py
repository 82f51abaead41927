"""The folder of a new study: valid names, and existing studies."""

import json
from pathlib import Path

import pytest

from ensdistill.errors import ConfigError, DataError
from ensdistill_tune.study.claim import claim


def existing(studies: Path, name: str, state: str) -> None:
    (studies / name).mkdir()
    (studies / name / "study.json").write_text(json.dumps({"state": state}))


@pytest.mark.parametrize("name", ["", "a b", "../a", ".hidden", "teachers", "mlflow.db"])
def test_an_invalid_or_reserved_name_is_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^name: must consist of letters, digits"):
        claim(tmp_path, name, "default", print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "fix"),
    [("interrupted", "resume mine.*` resumes it"), ("finished", "resume mine.* budget.trials=N.*` extends it")],
)
def test_a_requested_name_in_use_is_rejected_and_the_error_states_the_fix(state: str, fix: str, tmp_path: Path) -> None:
    existing(tmp_path, "mine", state)
    with pytest.raises(ConfigError, match=rf"already exists \({state}\).*{fix}, or choose another name"):
        claim(tmp_path, "mine", "default", print)


def test_a_default_name_in_use_is_numbered_and_an_unfinished_study_is_mentioned(tmp_path: Path) -> None:
    notes: list[str] = []
    existing(tmp_path, "default", "finished")
    assert claim(tmp_path, None, "default", notes.append) == "default-2"
    assert notes == []
    existing(tmp_path, "other", "interrupted")
    (tmp_path / "other-2").write_text("a file of someone else")
    assert claim(tmp_path, None, "other", notes.append) == "other-3"
    assert len(notes) == 1
    assert "study other already exists (interrupted); resume it with `ensdistill-tune resume other" in notes[0]


def test_the_folder_of_a_failed_launch_is_reused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/.lock").touch()
    assert claim(tmp_path, "mine", "default", print) == "mine"
    (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(ConfigError, match=r"already exists \(no study\)"):
        claim(tmp_path, "mine", "default", print)


def test_a_folder_that_cannot_be_written_causes_an_error_that_states_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: must be writable \(Not a directory\)\. Choose another folder\."):
        claim(tmp_path / "file", None, "default", print)
