"""With `resources.num_to_keep`, only students of the best trials, baselines and replicates are kept on disk."""

import json
from pathlib import Path

import pytest

from ensdistill.errors import ConfigError
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill_tune import resume
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState

NLL = {1: 0.9, 2: 0.5, 3: 0.3, 4: 0.4, 5: 0.6}  # by trial; the first one is the baseline
SPACE = {
    "preset": "kd",
    "config": {"training": {"epochs": 1}},
    "search": {"loss.temperature": {"uniform": [1, 4]}},
    "searcher": {"kind": "random"},
    "baselines": ["kd"],
    "budget": {"trials": 4},
    "confirmation": {"top_k": 1, "seeds": 2},
    "resources": {"num_to_keep": 2},
}


def test_students_of_baselines_and_replicates_and_the_best_trials_are_kept(tmp_path: Path) -> None:
    folder = StudyDirectory(tmp_path)
    agenda = TrialPlanner(StudyState(StudyConfig(**SPACE), folder, {}, trial_warnings), slots=1)
    while isinstance(trial := agenda.next(), dict):
        number = trial["number"]
        folder.trial(number).mkdir(parents=True)
        (folder.trial(number) / STUDENT_FILE).touch()
        agenda.report(number, {"epoch": 1.0, "epochs": 1.0} | dict.fromkeys(METRICS, NLL.get(number, 0.2)))
        agenda.end(number, "finished")
    kept = {int(file.parent.name) for file in tmp_path.glob(f"trials/*/{STUDENT_FILE}")}
    assert kept == {1, 3, 4} | {6, 7, 8, 9}  # the baseline, the two best, and two replicates each of trials 1 and 3


def test_constraints_cannot_change_after_students_were_removed(copy: Path) -> None:
    file = copy / "tiny" / "study.json"
    summary = json.loads(file.read_text())
    summary["study"]["resources"]["num_to_keep"] = 2
    file.write_text(json.dumps(summary))
    with pytest.raises(ConfigError, match=r"constraints: must not change, because only the students of the best 2"):
        resume(copy / "tiny", overrides={"constraints": {"val/accuracy": {"at_least": 0.1}}}, executor="inline")
