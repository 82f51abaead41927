"""Studies launched from Python on Ray: in a running Ray that is not shut down, or in one that ends with the study."""

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import ensdistill_tune as edt
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import StopRequested
from tests.unit.study.test_python_api import CONFIG, Steps, study


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


def launch(studies: Path, name: str, **more: Any) -> edt.StudyResults:
    settings: dict[str, Any] = {"progress": "off", "executor": "ray", "device": "cpu"} | more
    of = settings.pop("of", None) or study(resources={"max_concurrent": 1}, confirmation={"top_k": 0})
    return edt.launch(of, name=name, studies_dir=studies, **settings)


def process() -> list[Any]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    return [{name: value for name, value in os.environ.items() if name.startswith(("RAY", "TUNE", "MLFLOW"))}, handlers]


@pytest.fixture
def my_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_study_does_not_shut_down_ray_if_ray_was_already_running_in_its_process(studies: Path, my_ray: None) -> None:
    node, before = ray.get_runtime_context().get_node_id(), process()
    steps = Steps()
    results = launch(studies, "mine", callbacks=[steps])
    assert results.state == "finished"
    assert steps.steps[-1] == "study finished"
    assert ray.is_initialized()
    assert ray.get_runtime_context().get_node_id() == node
    assert ray.get(ray.remote(lambda: 3).remote()) == 3
    assert process() == before


def test_two_studies_in_a_background_thread_leave_no_ray_processes_behind(studies: Path) -> None:
    found: list[edt.StudyResults] = []
    before = process()

    def work() -> None:
        first = launch(studies, "thread", callbacks=[Steps(2, lambda: edt.stop(studies / "thread", wait_s=0))])
        found.extend([first, edt.resume(first.home, executor="ray", progress="off", device="cpu")])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [results.state for results in found] == ["interrupted", "finished"]
    assert not ray.is_initialized()
    assert process() == before


CPUS = os.cpu_count() or 1


@pytest.mark.skipif(CPUS > 8, reason="starts one process for each CPU")
def test_trials_run_in_the_processes_that_ray_started_in_advance(
    studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(studies, "first", executor="inline")  # trains the teachers, which would use these processes
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        of = study(resources={"max_concurrent": CPUS}, confirmation={"top_k": 0})
        assert launch(studies, "in_advance", of=of).state == "finished"
        assert len(list(Path(folder).glob("ray/session_2*/logs/worker-*.out"))) == CPUS


class Steering(edt.Callback):
    """Stops each trial at its first report, enqueues settings, and stops the study after trial 2."""

    def __init__(self, home: Path) -> None:
        self.home, self.seen = home, set[int]()

    def on_epoch(self, study: edt.StudyState, trial: edt.TrialRecord) -> None:
        if trial.number not in self.seen:
            self.seen.add(trial.number)
            edt.stop(self.home, trial.number, wait_s=0)
            edt.enqueue(self.home, {"loss.temperature": 7.0}, wait_s=0)

    def on_trial_end(self, study: edt.StudyState, trial: edt.TrialRecord) -> None:
        if trial.number == 2:
            edt.stop(self.home, wait_s=0)


def test_a_long_trial_is_stopped_and_the_next_trial_uses_the_enqueued_settings(studies: Path) -> None:
    of = study(
        search={"loss.temperature": edt.log_uniform(1, 10)},
        config=CONFIG | {"training": {"epochs": 5000, "batch_size": 20}},
        baselines=[],
        budget={"trials": 3, "minutes": 2},
        resources={"max_concurrent": 1},
    )
    results = launch(studies, "steered", of=of, callbacks=[Steering(studies / "steered")])
    assert results.state == "interrupted"
    assert [trial.state for trial in results.trials[:2]] == ["pruned", "pruned"]
    assert results.trials[1].sampled == {"loss.temperature": 7.0}
    events = read_journal(results.home / "events.jsonl")
    assert [event.trial for event in events if isinstance(event, StopRequested)] == [1, 2, None]


def test_after_ctrl_c_results_are_returned_and_the_study_can_be_resumed(studies: Path) -> None:
    results = launch(studies, "interrupted", callbacks=[Steps(2, lambda: signal.raise_signal(signal.SIGINT))])
    assert results.state == "interrupted"
    assert edt.resume(results.home, executor="inline", progress="off").state == "finished"
