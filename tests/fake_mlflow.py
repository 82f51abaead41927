"""An MLflow store in memory: the calls of the tracker, with the semantics of MLflow's stores.

A point (name, step, time, value) is stored once, a param never changes, tags are overwritten, deleted runs are
not found. `fault` is called before and after the effect of each call and may raise an exception. If it raises after the
effect, the response is lost, but the effect remains.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException

Point = tuple[str, int, int, float]  # name, step, time in milliseconds, value


@dataclass
class FakeRun:
    """One run."""

    name: str
    start: int | None
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: set[Point] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    status: str = "RUNNING"
    end: int | None = None
    deleted: bool = False

    @property
    def content(self) -> dict[str, Any]:
        """Everything except the id."""
        return vars(self)


class _Page(list[Any]):
    token = ""


class FakeStore:
    """The content of a store; `client` replaces `MlflowClient`."""

    def __init__(self, fault: Callable[[str], None] = lambda when: None) -> None:
        self.fault = fault
        self.experiment_tags: dict[str, str] = {}
        self.experiment: SimpleNamespace | None = None
        self.runs: dict[str, FakeRun] = {}

    def client(self, uri: str) -> "FakeClient":
        """Replaces `mlflow.MlflowClient`."""
        return FakeClient(self)

    @property
    def by_trial(self) -> dict[int, FakeRun]:
        """The runs that are not deleted, keyed by trial number; 0 is the parent run."""
        kept = [run for run in self.runs.values() if not run.deleted]
        found = {int(run.tags["trial"]): run for run in kept}
        assert len(found) == len(kept), "a trial has two runs"
        return found


class FakeClient:
    """A connection to the store."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        return self._faulty(attribute) if not name.startswith("_") and callable(attribute) else attribute

    def _faulty(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*words: Any, **more: Any) -> Any:
            self._store.fault("before")
            answer = call(*words, **more)
            self._store.fault("after")
            return answer

        return faulty

    def _run(self, run: str) -> FakeRun:
        known = self._store.runs.get(run)
        if known is None or known.deleted:
            raise MlflowException(f"Run {run} not found", error_code=3001)  # RESOURCE_DOES_NOT_EXIST
        return known

    # --- the calls of the tracker ---

    def get_experiment_by_name(self, name: str) -> Any:
        """Returns the experiment; None before `create_experiment`."""
        return self._store.experiment

    def create_experiment(self, name: str, artifact_location: str | None, tags: Mapping[str, str]) -> str:
        """Creates the only experiment."""
        if self._store.experiment is None:
            place = {"artifact_location": artifact_location, "lifecycle_stage": "active"}
            self._store.experiment = SimpleNamespace(experiment_id="1", name=name, **place)
            self._store.experiment_tags |= tags
        return "1"

    def get_experiment(self, experiment: str) -> Any:
        """Returns the experiment with its tags."""
        return SimpleNamespace(tags=dict(self._store.experiment_tags))

    def set_experiment_tag(self, experiment: str, name: str, value: str) -> None:
        """Sets a tag."""
        self._store.experiment_tags[name] = value

    def create_run(self, experiment: str, start_time: int | None, run_name: str, tags: dict[str, str]) -> Any:
        """Creates a run."""
        run = f"run{len(self._store.runs)}"
        self._store.runs[run] = FakeRun(run_name, start_time, dict(tags))
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def search_runs(self, experiments: Sequence[str], condition: str, max_results: int, page_token: str | None) -> Any:
        """Finds runs by the two conditions of the tracker."""
        found = _Page()
        wanted = dict(re.findall(r"tags\.(\w+) = '([^']*)'", condition))
        for run, own in self._store.runs.items():
            if own.deleted or any(own.tags.get(name) != value for name, value in wanted.items()):
                continue
            if "tags.result != ''" in condition and not own.tags.get("result"):
                continue
            data = SimpleNamespace(tags=dict(own.tags), metrics={name for name, *_ in own.points})
            found.append(SimpleNamespace(info=SimpleNamespace(run_id=run), data=data))
        return found

    def delete_run(self, run: str) -> None:
        """Deletes a run."""
        self._run(run).deleted = True

    def get_run(self, run: str) -> Any:
        """Returns the params of a run."""
        return SimpleNamespace(data=SimpleNamespace(params=dict(self._run(run).params)))

    def log_batch(
        self, run: str, metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = ()
    ) -> None:
        """Logs params, points and tags of a run, within MLflow's limits."""
        assert max(len(params), len(tags)) <= 100
        assert len(metrics) + len(params) + len(tags) <= 1000
        own = self._run(run)
        for param in params:
            if own.params.setdefault(param.key, param.value) != param.value:
                raise MlflowException("Changing param values is not allowed", error_code=1000)
        own.points |= {(point.key, point.step, point.timestamp, point.value) for point in metrics}
        own.tags |= {tag.key: tag.value for tag in tags}

    def log_inputs(self, run: str, datasets: Sequence[Any]) -> None:
        """Logs the data sets of a run."""
        self._run(run).inputs |= {one.dataset.digest for one in datasets}

    def log_text(self, run: str, text: str, file: str) -> None:
        """Stores a text file of a run."""
        self._run(run).texts[file] = text

    def log_artifact(self, run: str, file: str, folder: str | None = None) -> None:
        """Stores a file of a run."""
        self._run(run).files.add(f"{folder}/{file}")

    def update_run(self, run: str, status: str | None = None, name: str | None = None) -> None:
        """Sets the status or the name of a run."""
        own = self._run(run)
        own.status, own.name = status or own.status, name or own.name

    def set_terminated(self, run: str, status: str, end_time: int) -> None:
        """Ends a run."""
        own = self._run(run)
        own.status, own.end = status, end_time
