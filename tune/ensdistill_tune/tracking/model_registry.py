"""MLflow's model registry: a student that was exported, under a name from which others load it.

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
    """The file as the next version of the registered model of that name, which is made if need be; the version.

    onnx_path: takes `images`, uint8 (N,C,H,W), gives `logits` and `probabilities`, float32 (N,classes). example: such
    images, one or a few; they stay with the model. run: the id of the run it comes from. tags: of the version, such as
    study, hashes and metrics. champion: whether the alias `champion` moves to it. Raises DataError if MLflow refuses.
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
        raise DataError(f"{name}: MLflow does not register it ({reason})") from error
    return int(made.version)


def run_of(uri: str, experiment: str, study_id: str, trial: int, send: str = "ensdistill-tune sync STUDY") -> str:
    """The id of a trial's run. Raises DataError with the command `send` if MLflow has none."""
    client = MlflowClient(whole(uri))
    known = client.get_experiment_by_name(experiment)
    wanted = f"tags.study_id = '{study_id}' and tags.trial = '{trial}'"
    runs = client.search_runs([known.experiment_id], wanted) if known else []
    if not runs:
        raise DataError(f"MLflow has no run of trial {trial}; `{send}` sends what is missing")
    return str(runs[0].info.run_id)


def _log(client: MlflowClient, run: str, onnx_path: Path, example: np.ndarray) -> str:
    """The model with signature and input example, as artifacts of the run; the folder that they are in.

    Its name goes with the content: another version from the same run leaves this one as it is.
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
    """The registered model, there from now on."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
