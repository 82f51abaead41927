"""The runs of one study in MLflow: lookup, creation, and removal of duplicates."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ensdistill.runtime.command_line import command_line, quoted
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.tracking.batches import milliseconds
from ensdistill_tune.tracking.default_store import relocate
from ensdistill_tune.tracking.descriptions import EXPERIMENT_NOTE, NOTE
from ensdistill_tune.tracking.target import MlflowTarget

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NAME = 250  # maximum length of the name of a run, in characters
RESULT = "result"  # tag on the runs of the winner and of other top trials; see `Standing`
PARENT = 0  # number of the parent run; trial numbers start at 1


class DeletedExperimentError(Exception):
    """The experiment was deleted; MLflow refuses all writes until it is restored."""


class DeletedRunError(Exception):
    """A run was deleted in MLflow while its study was running."""


class RunIndex:
    """The runs of one study, keyed by trial number; number 0 is the parent run.

    Attributes:
        experiment: Id of the experiment; empty before `connect`.
    """

    def __init__(self, target: MlflowTarget) -> None:
        self._target = target
        self._runs: dict[int, str] = {}
        self.experiment = ""

    def __contains__(self, number: int) -> bool:
        return number in self._runs

    def __getitem__(self, number: int) -> str:
        """Id of a trial's run."""
        return self._runs[number]

    def run_of(self, trial: TrialRecord) -> str:
        """Returns the id of the run of a started trial.

        Raises:
            DeletedRunError: The run was deleted.
        """
        if trial.number not in self._runs:
            raise DeletedRunError(f"the run of trial {trial.name} was deleted")
        return self._runs[trial.number]

    def connect(self, client: "MlflowClient") -> None:
        """Finds or creates the experiment, then finds the runs."""
        self.experiment = find_experiment(client, self._target)
        self.refresh(client)

    def refresh(self, client: "MlflowClient") -> None:
        """Finds the runs, and deletes duplicates.

        Duplicates occur if a server creates a run but the response is lost; the empty duplicate is deleted.
        """
        found: dict[int, list[tuple[bool, int, str]]] = {}
        for run in self._search(client):
            number, known = int(run.data.tags["trial"]), self._runs.values()
            own = (run.info.run_id in known, len(run.data.metrics), str(run.info.run_id))
            found.setdefault(number, []).append(own)
        for several in found.values():
            several.sort()
            for _, _, ghost in several[:-1]:
                client.delete_run(ghost)
        self._runs = {number: several[-1][2] for number, several in found.items()}

    def create(self, client: "MlflowClient", number: int, name: str, tags: dict[str, str], at: float | None) -> None:
        """Creates the run of a trial, or the parent run.

        Args:
            client: Client of MLflow.
            number: Number of the trial.
            name: Name of the run; only the first `NAME` characters are sent.
            tags: Tags of the run, in addition to those that identify the study.
            at: Start time in seconds since 1970; None for the current time.
        """
        tags = {"study": self._target.study, "study_id": self._target.identity, **tags}
        start = None if at is None else milliseconds(at)
        run = client.create_run(self.experiment, start_time=start, run_name=name[:NAME], tags=tags)
        self._runs[number] = str(run.info.run_id)

    def marked(self, client: "MlflowClient") -> Iterator[tuple[int, str]]:
        """Yields the trial number and the id of each run whose tag `result` is not empty."""
        for run in self._search(client, f" AND tags.{RESULT} != ''"):
            yield int(run.data.tags["trial"]), str(run.info.run_id)

    def _search(self, client: "MlflowClient", condition: str = "") -> Iterator["Run"]:
        token: str | None = None
        while token is None or token:
            wanted = f"tags.study_id = '{self._target.identity}'{condition}"
            runs = client.search_runs([self.experiment], wanted, max_results=1000, page_token=token)
            yield from runs
            token = runs.token or ""


def find_experiment(client: "MlflowClient", target: MlflowTarget) -> str:
    """Returns the id of the experiment. Creates a missing experiment; corrects stored paths if artifacts were moved.

    Raises:
        DeletedExperimentError: The experiment was deleted.
    """
    own = None if target.uri.startswith("http") else target.artifacts.resolve().as_uri()
    known = client.get_experiment_by_name(target.experiment)
    if known is not None and known.lifecycle_stage == "deleted":
        raise DeletedExperimentError(_deleted(target, known.experiment_id))
    if known is not None:
        old = str(known.artifact_location)
        if target.database and own and old != own and old.endswith(f"/{target.artifacts.name}"):
            relocate(target.database, old, own)
        return str(known.experiment_id)
    tags = {NOTE: EXPERIMENT_NOTE}
    return str(client.create_experiment(target.experiment, artifact_location=own, tags=tags))


def _deleted(target: MlflowTarget, experiment: str) -> str:
    """Returns the error message for a deleted experiment, with two fixes."""
    store = quoted(f"MLFLOW_TRACKING_URI={target.uri}")
    change = ("--set", "tracking.experiment=NAME")
    other = command_line("ensdistill-tune", "resume", target.study, options=[change], studies=target.folder.parent)
    return (
        f"the experiment {target.experiment} was deleted in MLflow: restore it with `env {store} mlflow experiments "
        f"restore --experiment-id {experiment}`, or use another experiment with `{other}`"
    )
