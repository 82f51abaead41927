"""Model registry of MLflow: registers an exported student under a name from which it can be loaded.

mlflow.pyfunc.load_model("models:/NAME@champion").predict(images)   # uint8 (N,C,H,W) -> {"logits", "probabilities"}
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from mlflow import MlflowClient
from mlflow import onnx as flavour
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

from ensdistill.errors import DataError
from ensdistill.runtime.secrets import without_secrets
from ensdistill_tune.credentials import whole

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
        onnx_path: File with input `images`, uint8 (N,C,H,W), and outputs `logits` and `probabilities`, float32
            (N,classes).
        example: One or a few images, which are stored with the model.
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
    """Logs the model with signature and input example as artifacts of the run, and returns their folder.

    The folder name contains a hash of the file, so that versions of the same run have separate folders.
    """
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answer = dict(zip(names, session.run(names, {session.get_inputs()[0].name: example}), strict=True))
    folder = f"model-{hashlib.sha256(onnx_path.read_bytes()).hexdigest()[:8]}"
    with TemporaryDirectory() as temporary:
        flavour.save_model(
            onnx.load(onnx_path),
            f"{temporary}/{folder}",
            signature=infer_signature(example, answer),
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in ("onnx", "onnxruntime", "numpy")],
        )
        client.log_artifacts(run, temporary)
    return folder


def _make_sure_of(client: MlflowClient, name: str) -> None:
    """Ensures that the registered model exists."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
