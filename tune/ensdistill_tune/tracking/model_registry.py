"""Model registry of MLflow: registers an exported student under a name from which it can be loaded.

model = mlflow.pyfunc.load_model("models:/NAME@champion")
model.predict(pandas.DataFrame({"image": [Path("photo.jpg")]}))  # label, probability, probabilities
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mlflow import MlflowClient, pyfunc
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

from ensdistill.errors import DataError
from ensdistill.runtime.secrets import without_secrets
from ensdistill_tune.credentials import whole
from ensdistill_tune.tracking.model_content import model_content

ALIAS = "champion"


def register(
    uri: str,
    name: str,
    onnx_path: Path,
    example: np.ndarray,
    *,
    run: str,
    tags: Mapping[str, str] | None = None,
    champion: bool = False,
) -> int:
    """Registers an ONNX file as the next version of a model, which is created if necessary.

    Args:
        uri: URI of the store.
        name: Name of the registered model.
        onnx_path: File of `ensdistill export`.
        example: Image uint8 (C,H,W), which is stored with the model.
        run: Id of the run of the student.
        tags: Tags of the version, such as study, hashes and metrics.
        champion: Whether the alias `champion` moves to this version.

    Returns:
        The number of the version.

    Raises:
        DataError: MLflow refuses the model.
    """
    uri = whole(uri)
    client = MlflowClient(uri)
    try:
        folder = _log(client, run, onnx_path, example)
        _make_sure_of(client, name)
        source = RunsArtifactRepository.get_underlying_uri(f"runs:/{run}/{folder}", uri)
        made = client.create_model_version(name, source, run_id=run, tags=dict(tags or {}))
        if champion:
            client.set_registered_model_alias(name, ALIAS, made.version)
    except MlflowException as error:
        reason = " ".join(without_secrets(str(error)).split())[:200]
        raise DataError(f"{name}: MLflow refused to register the model ({reason})") from error
    return int(made.version)


def run_of(uri: str, experiment: str, study_id: str, trial: int, send: str = "ensdistill-tune sync STUDY") -> str:
    """Returns the id of the run of a trial.

    Raises:
        DataError: MLflow has no such run; the error names the command `send`.
    """
    client = MlflowClient(whole(uri))
    known = client.get_experiment_by_name(experiment)
    wanted = f"tags.study_id = '{study_id}' and tags.trial = '{trial}'"
    runs = client.search_runs([known.experiment_id], wanted) if known else []
    if not runs:
        raise DataError(f"MLflow has no run of trial {trial}; `{send}` sends the missing events")
    return str(runs[0].info.run_id)


def _log(client: MlflowClient, run: str, onnx_path: Path, example: np.ndarray) -> str:
    """Logs the model as artifacts of the run, and returns their folder.

    The folder name contains a hash of the file, so that versions of the same run have separate folders.
    """
    folder = f"model-{hashlib.sha256(onnx_path.read_bytes()).hexdigest()[:8]}"
    with TemporaryDirectory() as temporary:
        pyfunc.save_model(f"{temporary}/{folder}", **model_content(onnx_path, example))
        client.log_artifacts(run, temporary)
    return folder


def _make_sure_of(client: MlflowClient, name: str) -> None:
    """Ensures that the registered model exists."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
