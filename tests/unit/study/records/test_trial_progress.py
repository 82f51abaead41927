"""The file with progress within an epoch is replaced, and ignored if it belongs to another epoch."""

from pathlib import Path

import pytest

from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_progress import FILE, TrialProgress, clear_progress, read_progress, write_progress
from ensdistill_tune.records.trial_record import TrialRecord

NOW = TrialProgress(epoch=3, share=0.25, loss=1.5, images_per_second=640.0)


def trial(number: int, epoch: int, state: str = "running") -> TrialRecord:
    return TrialRecord(number, None, {}, "", state, [{"epoch": float(epoch)}] if epoch else [])  # type: ignore[arg-type]


def test_progress_is_read_until_the_epoch_is_reported_or_the_trial_ends(tmp_path: Path) -> None:
    folder = StudyDirectory(tmp_path)
    write_progress(folder.trial(1), TrialProgress(3, 0.1, 2.0, 600.0))
    write_progress(folder.trial(1), NOW)
    assert read_progress(folder, [trial(1, 2), trial(2, 0)]) == {1: NOW}
    assert read_progress(folder, [trial(1, 3)]) == {}
    assert read_progress(folder, [trial(1, 2, "interrupted")]) == {}
    clear_progress(folder.trial(1))
    clear_progress(folder.trial(2))
    assert read_progress(folder, [trial(1, 2)]) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"epoch": 3}', '{"epoch": 3, "other": 1}'])
def test_a_damaged_progress_file_is_ignored(content: str, tmp_path: Path) -> None:
    folder = StudyDirectory(tmp_path)
    folder.trial(1).mkdir(parents=True)
    (folder.trial(1) / FILE).write_text(content)
    assert read_progress(folder, [trial(1, 2)]) == {}


def test_progress_with_a_nan_loss_is_written_and_an_unwritable_folder_causes_no_error(tmp_path: Path) -> None:
    folder = StudyDirectory(tmp_path)
    write_progress(folder.trial(1), TrialProgress(3, 0.25, float("nan"), 640.0))
    assert read_progress(folder, [trial(1, 2)])[1].loss is None
    (tmp_path / "file").touch()
    write_progress(tmp_path / "file" / "below", NOW)
