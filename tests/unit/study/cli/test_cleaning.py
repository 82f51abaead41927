"""`clean` lists decoded images, teachers and studies, and removes named entries that are not in use."""

import json
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from ensdistill.data import DataSplits, ImageFolder, load_data
from ensdistill.data import store as stores
from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import call


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with one teacher and the decoded images of `images`."""
    monkeypatch.setattr(stores, "IN_MEMORY", 0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for n in range(20):
            pixels = np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{n}.png")
    (tmp_path / "studies/teachers/0123").mkdir(parents=True)
    (tmp_path / "studies/teachers/0123/network.safetensors").write_bytes(bytes(1000))
    return tmp_path / "studies"


def decoded(studies: Path) -> DataSplits:
    return load_data(ImageFolder(path=str(studies.parent / "images"), size=8), studies)


def clean(studies: Path, *words: str) -> tuple[int, list[dict[str, object]]]:
    done = call("ensdistill-tune", "clean", *words, "--studies-dir", studies, "--json")
    return done.code, json.loads(done.out)


def test_clean_lists_data_sets_and_teachers_with_sizes_and_removes_nothing_by_default(studies: Path) -> None:
    identity = decoded(studies).identity
    code, rows = clean(studies, "datasets", "teachers")
    assert code == 0
    assert [str(row["name"]).partition("/")[0] for row in rows] == ["datasets", "teachers"]
    assert rows[1]["size"] == 1000
    assert int(str(rows[0]["size"])) > 40 * 3 * 8 * 8
    assert "40 images of 3x8x8" in str(rows[0]["content"])
    assert not any(row["removed"] for row in rows)
    assert decoded(studies).identity == identity


def test_a_named_data_set_is_removed_and_decoded_again_when_needed(studies: Path) -> None:
    identity = decoded(studies).identity
    name = str(clean(studies)[1][0]["name"])
    assert clean(studies, name, "--remove")[0] == 0
    assert not (studies / name).exists()
    assert [row["name"] for row in clean(studies)[1]] == ["teachers/0123"]
    assert decoded(studies).identity == identity


def test_data_in_use_by_a_process_are_not_removed(studies: Path) -> None:
    data = decoded(studies)
    code, rows = clean(studies, "datasets", "--remove")
    assert (code, rows[0]["in_use"], rows[0]["removed"]) == (1, True, False)
    assert data.train.images[:2].shape == (2, 3, 8, 8)


def test_a_teacher_that_is_being_trained_is_not_removed(studies: Path) -> None:
    with FileLock(studies / "teachers/0123.lock"):
        assert clean(studies, "teachers", "--remove")[0] == 1
    assert (studies / "teachers/0123").is_dir()
    assert clean(studies, "teachers/0123", "--remove")[0] == 0
    assert not (studies / "teachers/0123").exists()


def test_teachers_are_kept_while_a_study_is_running_even_if_its_study_file_is_damaged(studies: Path) -> None:
    (studies / "mine").mkdir()
    (studies / "mine" / "study.json").write_text('{"state": "runn')
    with StudyDirectory(studies / "mine").held():
        assert clean(studies, "teachers", "--remove")[0] == 1
    assert (studies / "teachers/0123").is_dir()
    assert clean(studies, "teachers", "--remove")[0] == 0


def test_clean_with_an_unknown_name_removes_nothing(studies: Path) -> None:
    done = call("ensdistill-tune", "clean", "teachers/0123", "teachers/4567", "--remove", "--studies-dir", studies)
    assert done.code == 2
    assert "no entry teachers/4567" in done.err
    assert (studies / "teachers/0123").is_dir()


def test_the_table_shows_names_and_sizes_and_states_and_the_next_step(studies: Path) -> None:
    def shown(*words: str) -> str:
        done = call("ensdistill-tune", "clean", *words, "--studies-dir", studies)
        assert (done.code, done.err) == (0, "")
        return " ".join(done.out.split())

    listed = shown()
    assert "teachers/0123" in listed
    assert "1 KiB" in listed
    assert "not in use" in listed
    assert "name entries and add --remove" in listed
    assert "would remove 1 entry" in shown("teachers")
    assert "removed: 1 entry" in shown("teachers", "--remove")
    assert "no decoded data sets, teachers or studies" in shown()


def test_an_entry_in_use_is_not_removed_and_the_exit_code_is_1(studies: Path) -> None:
    with FileLock(studies / "teachers/0123.lock"):
        done = call("ensdistill-tune", "clean", "teachers", "--remove", "--studies-dir", studies)
    assert done.code == 1
    assert "not removed" in done.err
    assert "in use" in done.out


def test_a_study_is_listed_with_its_state_and_removed_only_if_it_is_named_and_not_running(copy: Path) -> None:
    (row,) = [row for row in clean(copy)[1] if str(row["name"]).startswith("studies/")]
    assert row["name"] == "studies/tiny"
    assert row["content"] == "finished study, 10 trials of 10"
    assert row["size"] == sum(file.stat().st_size for file in (copy / "tiny").rglob("*") if file.is_file())
    assert "no entry studies" in call("ensdistill-tune", "clean", "studies", "--remove", "--studies-dir", copy).err
    with StudyDirectory(copy / "tiny").held():
        assert clean(copy, "studies/tiny", "--remove")[0] == 1
    assert (copy / "tiny" / "study.json").is_file()
    assert clean(copy, "studies/tiny", "--remove")[0] == 0
    assert not (copy / "tiny").exists()
    assert list((copy / "teachers").iterdir())
