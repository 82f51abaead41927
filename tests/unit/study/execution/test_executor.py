"""A study stops if no trial works, and can be resumed once the cause is corrected."""

from pathlib import Path
from typing import Any

import pytest

from ensdistill_tune.execution import inline_runner
from ensdistill_tune.execution.executor import ALL_FAIL
from ensdistill_tune.execution.worker import run_trial
from ensdistill_tune.records.study_directory import StudyDirectory
from tests.commands import call
from tests.tiny import SHORT

STUDY = SHORT.replace("trials: 3", "trials: 14")


@pytest.mark.parametrize("works", [[], [3]], ids=["no trial works", "one trial works"])
def test_a_study_stops_if_its_first_trials_all_fail(
    works: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    options = ("--studies-dir", tmp_path, "--executor", "inline")

    def trial(suggestion: dict[str, Any], *given: Any) -> None:
        if suggestion["number"] not in works:
            raise RuntimeError("no device")
        run_trial(suggestion, *given)

    with monkeypatch.context() as patch:
        patch.setattr(inline_runner, "run_trial", trial)
        done = call("ensdistill-tune", "launch", tmp_path / "study.yaml", *options)
    states = [trial.state for trial in StudyDirectory(tmp_path / "study").read_trials()]
    if works:
        assert done.code == 0, done.err
        assert (len(states), states.count("finished")) == (14, 1)
        return
    assert done.code == 2
    assert (
        "10 trials have failed and none has completed an epoch; the last error is: RuntimeError: no device" in done.err
    )
    assert "Then `ensdistill-tune resume" in done.err
    assert states == ["failed"] * ALL_FAIL
    assert call("ensdistill-tune", "resume", "study", *options).code == 0
    states = [trial.state for trial in StudyDirectory(tmp_path / "study").read_trials()]
    assert states == ["failed"] * ALL_FAIL + ["finished"] * 4
