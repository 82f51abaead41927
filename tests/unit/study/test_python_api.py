"""Studies from Python: small real studies in this process."""

import gc
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ensdistill_tune as edt
from ensdistill.config import load_config
from ensdistill_tune.execution.environment import DEFAULTS
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.claim import claim

CONFIG = {
    "data": {"kind": "digits", "train_size": 60, "val_size": 100},
    "model.width": 4,
    "teachers": {"count": 2, "model": {"width": 4}, "training": {"epochs": 1}},
    "training": {"epochs": 3, "batch_size": 20},
}


def study(**more: Any) -> edt.StudyConfig:
    settings: dict[str, Any] = {
        "preset": "kd",
        "config": CONFIG,
        "search": {"loss.temperature": edt.log_uniform(1, 10), "seed": {"integer": (0, 9)}},
        "baselines": ["kd"],
        "scheduler": {"kind": "none"},
        "budget": {"trials": 2},
        "confirmation": {"top_k": 1, "seeds": 2},
    }
    return edt.StudyConfig(**settings | more)


SHORT = study(confirmation={"top_k": 0})


class Steps(edt.Callback):
    """Records its calls, and performs an action at the end of one trial."""

    def __init__(self, at: int = 0, act: Any = None) -> None:
        self.steps: list[str] = []
        self.at, self.act = at, act

    def on_trial_start(self, study: edt.StudyState, trial: TrialRecord) -> None:
        self.steps.append(f"start {trial.number}")

    def on_epoch(self, study: edt.StudyState, trial: TrialRecord) -> None:
        self.steps.append(f"epoch {trial.number} {trial.last['epoch']:.0f}")

    def on_trial_end(self, study: edt.StudyState, trial: TrialRecord) -> None:
        self.steps.append(f"end {trial.number} {trial.state}")
        if trial.number == self.at:
            self.act()

    def on_study_end(self, results: edt.StudyResults) -> None:
        self.steps.append(f"study {results.state}")


def process() -> list[Any]:
    """Returns the process state that a library must not change."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    modes = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), gc.get_freeze_count()
    return [dict(os.environ), handlers, modes, torch.get_rng_state().tolist(), str(np.random.get_state())]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


def launch(studies: Path, name: str, of: edt.StudyConfig | None = None, **more: Any) -> edt.StudyResults:
    settings: dict[str, Any] = {"progress": "off", "executor": "inline"} | more
    return edt.launch(of or study(), name=name, studies_dir=studies, **settings)


@pytest.fixture(scope="module")
def done(studies: Path) -> edt.StudyResults:
    return launch(studies, "done")


def test_a_study_run_from_python_prints_nothing_and_restores_the_process_state(
    done: edt.StudyResults, studies: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs after another study, which excludes variables set by imported libraries, such as KMP_* of scikit-learn."""
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    before = process()
    launch(studies, "silent", SHORT)
    assert process() == before
    assert capfd.readouterr() == ("", "")


def test_results_agree_with_the_study_files(done: edt.StudyResults) -> None:
    assert done.state == "finished"
    assert done.best_config == load_config(done.home / "best" / "config.yaml")
    assert done.best_trial.replicate_of == done.confirmed[0].trial.number == done.pareto_trials[0].number
    assert str(done.verdict) in (done.home / "confirmation.json").read_text()
    assert len(done.trials_dataframe()) == 3
    assert len(done.replicates_dataframe()) == 4
    assert len(done.to_optuna().trials) == 2
    assert edt.load_results(done.home).trials == done.trials


def test_the_student_returned_for_a_trial_has_the_metrics_of_the_trial(done: edt.StudyResults) -> None:
    from ensdistill import load_data

    validation = load_data(done.best_config.data).validation
    for trial in (None, 1):
        network = done.student(trial)
        record = done.best_trial if trial is None else done.trials[0]
        with torch.no_grad():
            found = network(validation.images / 255).argmax(1)
        assert not network.training
        assert float((found == validation.labels).float().mean()) == pytest.approx(record.last["val/accuracy"])


def test_a_trial_without_a_student_is_refused(done: edt.StudyResults) -> None:
    with pytest.raises(edt.ConfigError, match="trial 99: done has trials 1 to 7"):
        done.student(99)


def test_the_report_can_be_written_again(done: edt.StudyResults) -> None:
    page = done.home / "report.html"
    page.unlink()
    assert done.report() == page
    assert page.exists()


def test_callbacks_are_called_when_a_trial_starts_or_reports_or_ends_and_when_the_study_ends(studies: Path) -> None:
    steps = Steps()
    launch(studies, "seen", SHORT, callbacks=[steps])
    trial = [f"epoch 2 {epoch}" for epoch in (1, 2, 3)]
    assert steps.steps[5:10] == ["start 2", *trial, "end 2 finished"]
    assert steps.steps[-1] == "study finished"
    assert len(steps.steps) == 3 * 5 + 1


def test_a_study_in_another_thread_prints_the_same_lines_as_the_command(
    studies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[edt.StudyResults] = []
    thread = threading.Thread(target=lambda: found.append(launch(studies, "thread", progress="auto")))
    thread.start()
    thread.join()
    assert [results.state for results in found] == ["finished"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study thread: 2 trials, baselines kd"
    assert lines[1].startswith("[  1/3] finished  001 kd  val/nll")
    assert any(line.startswith("verdict: ") for line in lines)


def test_ctrl_c_returns_the_results_so_far_and_the_study_resumes(studies: Path) -> None:
    steps = Steps(2, lambda: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    try:
        results = launch(studies, "interrupted", SHORT, callbacks=[steps])
    finally:
        signal.signal(signal.SIGINT, before)
    assert results.state == "interrupted"
    assert [trial.state for trial in results.trials] == ["finished"] * 2
    assert steps.steps[-1] == "study interrupted"
    again = edt.resume(results.home, overrides={"budget.trials": 3}, executor="inline", progress="off")
    assert (again.state, len(again.trials)) == ("finished", 4)
    assert again.trials[:2] == results.trials


def test_ctrl_c_before_the_first_trial_leaves_no_study_folder(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ensdistill_tune.execution.study_inputs.prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch(studies, "none")
    assert not (studies / "none").exists()


def test_a_running_study_can_be_read_and_accepts_enqueued_settings_but_not_a_second_launch(studies: Path) -> None:
    known: list[Any] = []

    def act() -> None:
        results = edt.load_results(studies / "steered")
        known.append((results.state, results.best_trial.number, len(results.history_dataframe())))
        known.append(edt.enqueue(studies / "steered", {"loss.temperature": 7.0, "seed": 5}, wait_s=0))
        with pytest.raises(edt.ConfigError, match="a study is already running in this process"):
            launch(studies, "second")

    results = launch(studies, "steered", SHORT, callbacks=[Steps(1, act)])
    assert known == [("running", 1, 3), "waiting"]
    assert results.trials[1].sampled == {"loss.temperature": 7.0, "seed": 5}
    assert not (studies / "second").exists()


def test_a_stopped_study_ends_in_the_same_state_as_an_interrupted_study(studies: Path) -> None:
    results = launch(studies, "stopped", SHORT, callbacks=[Steps(1, lambda: edt.stop(studies / "stopped", wait_s=0))])
    assert (results.state, len(results.trials)) == ("interrupted", 1)


def test_a_study_name_in_use_is_refused_and_a_default_name_in_use_is_numbered(
    done: edt.StudyResults, studies: Path
) -> None:
    with pytest.raises(edt.ConfigError, match=r"name done: .* already exists"):
        launch(studies, "done")
    assert claim(studies, None, "done", print) == "done-2"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"executor": "dask"}, "executor: must be one of ray, inline, got 'dask'"),
        ({"progress": "loud"}, "progress: must be one of auto, off, got 'loud'"),
        ({"callbacks": [3]}, "callbacks: each must be an object with at least one of the methods"),
    ],
)
def test_invalid_arguments_are_refused(more: dict[str, Any], reason: str, studies: Path) -> None:
    with pytest.raises(edt.ConfigError, match=reason):
        launch(studies, "refused", **more)
    assert not (studies / "refused").exists()


def test_a_file_path_is_not_accepted_as_a_study(studies: Path) -> None:
    with pytest.raises(edt.ConfigError, match=r"study: must be a StudyConfig, got 'my.yaml'"):
        edt.launch("my.yaml", studies_dir=studies)  # type: ignore[arg-type]


def test_an_invalid_study_config_is_refused_and_all_issues_are_reported(studies: Path) -> None:
    bad = study(search={"loss.temprature": edt.uniform(1, 2)}, baselines=["kdd"])
    assert [issue.name for issue in bad.check()] == ["baselines.0", "search.loss.temprature"]
    with pytest.raises(edt.ConfigError) as caught:
        launch(studies, "wrong", bad)
    assert len(caught.value.issues) == 2
    assert not (studies / "wrong").exists()


def test_a_study_without_a_completed_trial_has_no_best_trial(done: edt.StudyResults) -> None:
    results = replace(done, trials=[replace(done.trials[0], state="failed")], confirmed=())
    with pytest.raises(edt.DataError, match="no trial has completed"):
        _ = results.best_config
    with pytest.raises(edt.ConfigError, match="trial 1: must be finished, got failed"):
        results.student(1)
    assert (results.verdict, results.pareto_trials) == (None, [])
