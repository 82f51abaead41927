"""A study on real Ray that is killed or interrupted continues as if it had not been interrupted."""

import json
import signal
from pathlib import Path

import pytest

from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import call
from tests.end_to_end import chaos
from tests.servers import wait_until


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the undisturbed chaos study; the inline executor has no workers that could be killed."""
    folder = tmp_path_factory.mktemp("chaos")
    study = chaos.launched(folder, "undisturbed", executor="inline")
    output, _ = study.communicate(timeout=300)
    assert study.returncode == 0, output
    return folder


def test_a_study_resumed_after_its_driver_and_workers_were_killed_equals_an_undisturbed_study(
    undisturbed: Path,
) -> None:
    done = chaos.disturbed(undisturbed, kills=3, seed=7)
    assert set(done.ways) == set(chaos.WAYS)
    assert done.resumed == 2
    trials, runs, points = chaos.assert_equal(undisturbed)
    assert (trials, runs) == (12 + 1 + 4, 12 + 1 + 4 + 1)
    assert points > 2500  # nine metrics per epoch and the totals: shows that the comparison is not empty


def test_an_interrupted_study_closes_its_runs_and_prints_its_resume_command(undisturbed: Path, tmp_path: Path) -> None:
    study = chaos.launched(tmp_path, "disturbed")
    home = tmp_path / "studies" / "disturbed"
    wait_until(lambda: len(read_journal(home / "events.jsonl")) > 90, "some trials", 120)
    study.send_signal(signal.SIGINT)
    output, _ = study.communicate(timeout=120)
    assert study.returncode == 130, output
    assert f"ensdistill-tune resume disturbed --studies-dir {tmp_path / 'studies'}" in " ".join(output.split())
    assert json.loads((home / "study.json").read_text())["state"] == "interrupted"
    statuses = {status for status, *_ in chaos.in_mlflow(home).values()}
    assert "KILLED" in statuses
    assert "RUNNING" not in statuses
    again = call(
        "ensdistill-tune", "resume", "disturbed", "--studies-dir", tmp_path / "studies", "--executor", "inline"
    )
    assert again.code == 0, again.err
    assert chaos.outcome(home) == chaos.outcome(undisturbed / "studies" / "undisturbed")
    assert chaos.in_mlflow(home) == chaos.in_mlflow(undisturbed / "studies" / "undisturbed")


def test_a_study_stopped_by_a_batch_system_is_interrupted_and_leaves_no_run_open(tmp_path: Path) -> None:
    study = chaos.launched(tmp_path, "ended")
    home = tmp_path / "studies" / "ended"
    wait_until(lambda: len(read_journal(home / "events.jsonl")) > 10, "an epoch", 120)
    study.send_signal(signal.SIGTERM)
    output, _ = study.communicate(timeout=120)
    assert study.returncode == 130, output
    assert "INTERRUPTED" in output
    statuses = [status for status, *_ in chaos.in_mlflow(home).values()]
    assert len(statuses) == 1 + len(StudyDirectory(home).read_trials())
    assert set(statuses) <= {"KILLED", "FINISHED"}
