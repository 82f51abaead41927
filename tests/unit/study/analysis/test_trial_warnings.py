"""Warnings about images, teachers and students are shown wherever results are read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ensdistill.data import DataSplits, load_data
from ensdistill.errors import ConfigIssue
from ensdistill.evaluation import plausibility
from ensdistill_tune.analysis import trial_warnings
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.report.document import first_lines, sections
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState
from tests.commands import call

OF_IMAGES = ConfigIssue(("data", "path"), "3 files were left out", hint="rename them")
OF_STUDENTS = ConfigIssue(("student",), "is at chance", 0.5)
STUDY = StudyConfig.model_validate({"search": {"training.optimizer.lr": {"choice": [0.1, 0.2]}}})
SMALL = "data.train_size=40 data.val_size=60 model.width=2 teachers.model.width=2 teachers.count=1 training.epochs=1"


def facts(*found: ConfigIssue) -> StudyResults:
    rows = json.loads(json.dumps([issue.as_row() for issue in found]))
    return StudyResults("x", STUDY, {"state": "interrupted", "total": 2, "warnings": rows}, [])


def test_study_json_contains_warnings_about_students_before_those_about_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def rule(student: plausibility.Metrics, teachers: plausibility.TeacherMetrics, classes: int) -> ConfigIssue:
        seen.append((student["accuracy"], teachers, classes))
        return OF_STUDENTS

    monkeypatch.setattr(plausibility, "STUDENT_RULES", (rule,))
    header = {"warnings": [OF_IMAGES.as_row()], "teachers": {"members": []}, "classes": 7}
    progress = StudyState(STUDY, StudyDirectory(tmp_path), header, trial_warnings.trial_warnings)
    assert progress.summary("running")["warnings"] == [OF_IMAGES.as_row()]
    progress.start(1, baseline=None, sampled={}, config_hash="x")
    progress.report(1, {"epoch": 1, "epochs": 1} | dict.fromkeys(METRICS, 0.5))
    progress.end(1, "finished")
    progress.save("running")
    written = progress.folder.read_summary()
    assert written["warnings"] == [OF_STUDENTS.as_row(), OF_IMAGES.as_row()]
    assert seen[-1] == (0.5, {"members": []}, 7)


def test_a_study_warning_rule_receives_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_warnings, "STUDY_RULES", (lambda study, trials, *_: OF_STUDENTS if trials else None,))
    assert trial_warnings.trial_warnings(STUDY, [], None, {}, 2) == ()
    assert trial_warnings.trial_warnings(STUDY, ["any"], None, {}, 2) == (OF_STUDENTS,)  # type: ignore[list-item]


def student(number: int, cnll: float, baseline: str | None = None, replicate_of: int | None = None) -> TrialRecord:
    last = {"epoch": 1.0, "val/nll": cnll, "val/cnll": cnll, "val/accuracy": 0.5}
    return TrialRecord(
        number, baseline, {}, f"hash {replicate_of or number}", "finished", [last], replicate_of=replicate_of
    )


def rules(*trials: TrialRecord, teacher: float = 9.0) -> list[str]:
    teachers = {"members": [{"cnll": teacher, "accuracy": 0.6, "nll": teacher}], "ensemble": {}}
    found = trial_warnings.trial_warnings(STUDY, trials, None, teachers, 10)
    return [issue.rule.partition(":")[0] for issue in found]


def test_a_winner_trained_on_labels_only_causes_a_warning() -> None:
    assert rules(student(1, 0.1, "labels"), student(2, 0.2, "kd")) == ["no distillation won"]
    assert rules(student(1, 0.2, "labels"), student(2, 0.1, "kd")) == []
    assert rules(student(1, 0.1, "labels")) == []  # no trial to compare with


def test_the_confirmation_decides_whether_label_only_training_won() -> None:
    search = [student(1, 0.1, "labels"), student(2, 0.2, "kd")]
    seeds = range(STUDY.confirmation.seeds)
    replicates = [
        replace(student(10 * of + n, 0.3 / of, name, of), seed=STUDY.max_search_seed + 1 + n)
        for of, name in ((1, "labels"), (2, "kd"))
        for n in seeds
    ]
    assert rules(*search, *replicates) == []


def test_a_student_worse_than_one_teacher_causes_a_warning() -> None:
    assert rules(student(1, 0.2, "kd"), teacher=0.1) == ["worse than one teacher"]
    assert rules(student(1, 0.2, "kd"), teacher=0.3) == []
    assert rules(teacher=0.1) == []


def test_warnings_in_a_report_follow_the_statement_on_the_best_network() -> None:
    lines = first_lines(facts(OF_STUDENTS, OF_IMAGES), [], []).splitlines()
    assert "is incomplete" in lines[0]
    assert "No better network yet" in lines[1]
    assert lines[2] == "- **Warning**: student: is at chance, got 0.5"
    assert lines[3] == "- **Warning**: data.path: 3 files were left out. Rename them."


def test_many_warnings_are_listed_in_a_report_section() -> None:
    many = facts(*(ConfigIssue(("data",), f"<b>file_{n}*") for n in range(7)))
    assert "2 more warnings are listed" in first_lines(many, [], [])
    (text,) = [part.text for part in sections(many) if part.title == "All warnings"]
    assert text.splitlines()[6] == r"- data: \<b\>file\_6\*"


def test_a_report_without_warnings_has_no_warning_section() -> None:
    assert "All warnings" not in [part.title for part in sections(facts())]


def test_commands_print_warnings_and_include_them_in_their_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def suspicious(settings: object, studies: object) -> DataSplits:
        return replace(load_data(settings), warnings=(OF_IMAGES,))  # type: ignore[arg-type]

    monkeypatch.setattr("ensdistill.pipeline.load_data", suspicious)
    monkeypatch.setattr("ensdistill.export.run_locator.load_data", suspicious)
    monkeypatch.setattr(plausibility, "STUDENT_RULES", (lambda *_: OF_STUDENTS,))
    monkeypatch.setattr(plausibility, "TEACHER_RULES", ())
    own = [word for setting in (*SMALL.split(), "teachers.training.epochs=1") for word in ("--set", setting)]
    for command, rows in (
        ("teachers", [OF_IMAGES]),
        ("distill", [OF_STUDENTS, OF_IMAGES]),
        ("evaluate", [OF_STUDENTS, OF_IMAGES]),
    ):
        done = call("ensdistill", command, "kd", *own, "--studies-dir", tmp_path, "--json")
        assert json.loads(done.out)["warnings"] == [issue.as_row() for issue in rows], command
        assert [f"warning: {issue}" in done.err.splitlines() for issue in rows] == [True] * len(rows), command
