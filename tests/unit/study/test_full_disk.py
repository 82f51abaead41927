"""A full disk ends a study with one message; once space is available, the study continues as if not interrupted."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ensdistill.errors import MachineError
from ensdistill.training.checkpoint import Checkpoint, write_checkpoint
from ensdistill_tune.records.event_log import EventLog
from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import call
from tests.tiny import SHORT

FULL = OSError(28, "No space left on device")


def raising_once(work: Any, call_number: int) -> Any:
    """Returns the function, whose n-th call finds a full disk."""
    calls = iter(range(1, 1_000_000))

    def maybe(*given: Any, **named: Any) -> Any:
        if next(calls) == call_number:
            raise FULL
        return work(*given, **named)

    return maybe


def epochs(home: Path) -> list[Any]:
    """Returns state and losses of every trial."""
    trials = StudyDirectory(home).read_trials()
    return [(t.number, t.state, [epoch["train/loss"] for epoch in t.epochs]) for t in trials]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    studies = tmp_path_factory.mktemp("undisturbed")
    (studies / "full.yaml").write_text(SHORT)
    done = call("ensdistill-tune", "launch", studies / "full.yaml", "--studies-dir", studies, "--executor", "inline")
    assert done.code == 0, done.err
    return epochs(studies / "full")


@pytest.mark.parametrize("place", ["checkpoint", "event log"])
def test_a_study_on_a_full_disk_ends_with_one_message_and_resumes_exactly(
    place: str, undisturbed: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "full.yaml").write_text(SHORT)
    options = ("--studies-dir", tmp_path, "--executor", "inline")
    with pytest.MonkeyPatch.context() as patch:
        if place == "checkpoint":
            patch.setattr(torch, "save", raising_once(torch.save, 2))
        else:
            patch.setattr(EventLog, "_write_all", raising_once(EventLog._write_all, 8))
        done = call("ensdistill-tune", "launch", tmp_path / "full.yaml", *options)
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("error")]
    assert "cannot be written (No space left on device); free space on this disk. Then `ensdistill-tune resume" in line
    assert {state for _, state, _ in epochs(tmp_path / "full")} <= {"finished", "interrupted", "running"}
    assert call("ensdistill-tune", "resume", "full", *options).code == 0
    assert epochs(tmp_path / "full") == undisturbed


def test_a_checkpoint_on_a_full_disk_causes_an_error_about_the_disk_and_not_about_torch() -> None:
    full = Checkpoint({}, 1, {"weight": torch.zeros(100_000)}, {}, {}, False, {}, {})
    with pytest.raises(MachineError, match=r"/dev/full: cannot be written \(No space left on device\); free space"):
        write_checkpoint("/dev/full", full)
