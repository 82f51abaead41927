"""Model registry of MLflow: registers an exported student under a name by which it can be loaded.

model = mlflow.pyfunc.load_model("models:/NAME@champion")
model.predict(pandas.DataFrame({"image": [Path("photo.jpg")]}))  # label, probability, probabilities
"""

import json
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from ensdistill.errors import DataError
from ensdistill.runtime.secrets import without_secrets
from ensdistill_tune.credentials import whole
from ensdistill_tune.tracking.logged_model import ExportedModel, log_model

ALIAS = "champion"
SHOWN = ("/nll", "/accuracy", "/ece")  # suffixes of the metrics that become tags of a version
VERSIONS = "mlflow.modelVersions"  # tag of a logged model, as MLflow's `register_model` function writes it


def register(
    uri: str, name: str, model: ExportedModel, *, run: str, also: Sequence[str] = (), champion: bool = False
) -> int:
    """Registers a student as the next version of a registered model, which is created if necessary.

    The version refers to a logged model of the run. The same file from the same run is registered only once; a second
    call returns the existing version.

    Args:
        uri: URI of the store.
        name: Name of the registered model.
        model: The student.
        run: Id of the run that trained the student.
        also: Ids of further runs that also list the model as an output.
        champion: Whether the alias `champion` moves to this version.

    Returns:
        The number of the version.

    Raises:
        DataError: MLflow refuses the model.
    """
    client = MlflowClient(whole(uri))
    try:
        logged = log_model(client, run, model, also)
        number = _version_of(client, name, logged) or _new_version(client, name, logged, model)
        if champion:
            client.set_registered_model_alias(name, ALIAS, str(number))
    except MlflowException as error:
        reason = " ".join(without_secrets(str(error)).split())[:200]
        raise DataError(f"{name}: MLflow refused to register the model ({reason})") from error
    return number


def run_of(uri: str, experiment: str, study_id: str, trial: int, send: str = "ensdistill-tune sync STUDY") -> str:
    """Returns the id of a trial's run.

    Raises:
        DataError: MLflow has no such run; the message suggests the command in `send`.
    """
    client = MlflowClient(whole(uri))
    known = client.get_experiment_by_name(experiment)
    wanted = f"tags.study_id = '{study_id}' and tags.trial = '{trial}'"
    runs = client.search_runs([known.experiment_id], wanted) if known else []
    if not runs:
        raise DataError(f"MLflow has no run for trial {trial}; `{send}` sends the missing events")
    return str(runs[0].info.run_id)


def _version_of(client: MlflowClient, name: str, logged: LoggedModel) -> int | None:
    """Returns the newest version of a registered model that refers to a logged model; None if no version does."""
    known = client.search_model_versions(f"run_id = '{logged.source_run_id}'")
    own = [int(one.version) for one in known if (one.name, one.source) == (name, logged.artifact_location)]
    return max(own, default=None)


def _new_version(client: MlflowClient, name: str, logged: LoggedModel, model: ExportedModel) -> int:
    """Creates the next version and, if necessary, the registered model; a tag of the logged model lists the version."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Not `models:/ID`: a registry in a database would look up this address in the default store of the process.
    made = client.create_model_version(
        name,
        logged.artifact_location,
        run_id=logged.source_run_id,
        tags={**model.tags, **_shown(client.get_logged_model(logged.model_id))},
        description=model.description,
        model_id=logged.model_id,
    )
    known = json.loads(client.get_logged_model(logged.model_id).tags.get(VERSIONS, "[]"))
    entry = {"name": name, "version": made.version}
    if entry not in known:  # already written if the store is an MLflow server
        client.set_logged_model_tags(logged.model_id, {VERSIONS: json.dumps([*known, entry])})
    return int(made.version)


def _shown(logged: LoggedModel) -> dict[str, str]:
    """Returns the metrics of a logged model as tags, because the page of a model version shows no metrics."""
    return {metric.key: f"{metric.value:.4f}" for metric in logged.metrics or () if metric.key.endswith(SHOWN)}
