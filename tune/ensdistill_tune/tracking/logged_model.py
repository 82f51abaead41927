"""Logs exported students as models in MLflow; each model is an output of the run that trained the student.

MLflow lists logged models under `Models` on the pages of experiments and runs, with metrics for each data set.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mlflow import MlflowClient, pyfunc
from mlflow.entities import Dataset, LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.models import Model

from ensdistill_tune.metric_names import final_metric, metric_on_test
from ensdistill_tune.tracking.descriptions import NOTE
from ensdistill_tune.tracking.model_content import model_content

READY = LoggedModelStatus.READY
FILE_HASH = "onnx_sha256"  # tag that identifies the file of a logged model
TYPE = "classifier"
FINAL = final_metric("val/")  # prefix of the final metrics on the validation set


@dataclass(frozen=True)
class ExportedModel:
    """A student to store in MLflow.

    Attributes:
        name: Name of the logged model.
        onnx_path: ONNX file written by `ensdistill export`.
        example: Example image, a uint8 array of shape (C,H,W), which is stored with the model.
        description: Description of the model and of its versions, in Markdown.
        tags: Tags of the model and of its versions, such as study and hashes.
        test: Metrics on the test set; empty if the student was not evaluated on the test set.
        dataset: The data set to which all metrics refer; None if it is unknown.
    """

    name: str
    onnx_path: Path
    example: np.ndarray
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    dataset: Dataset | None = None

    @cached_property
    def sha256(self) -> str:
        """Hash of the ONNX file, as a hexadecimal string."""
        return hashlib.sha256(self.onnx_path.read_bytes()).hexdigest()


def log_model(client: MlflowClient, run_id: str, model: ExportedModel, also: Sequence[str] = ()) -> LoggedModel:
    """Returns the logged model of an exported student. Creates a missing model and completes an incomplete one.

    Args:
        client: Client of MLflow.
        run_id: Id of the run that trained the student.
        model: The student.
        also: Ids of further runs that also list the model as an output.
    """
    run = client.get_run(run_id)
    logged = _find(client, run, model) or _create(client, run, model)
    for output_of in (run, *map(client.get_run, also)):
        _add_output(client, output_of, logged.model_id)
    if logged.status != READY:
        _upload(client, run_id, logged, model)
        logged = client.finalize_logged_model(logged.model_id, READY)
    client.log_batch(run_id, metrics=list(_metrics(client, run, logged, model)))
    return logged


def _find(client: MlflowClient, run: Run, model: ExportedModel) -> LoggedModel | None:
    wanted = f"source_run_id = '{run.info.run_id}' AND tags.{FILE_HASH} = '{model.sha256}'"
    found = client.search_logged_models([run.info.experiment_id], wanted, max_results=1)
    return found[0] if found else None


def _create(client: MlflowClient, run: Run, model: ExportedModel) -> LoggedModel:
    source = {name: value for name, value in run.data.tags.items() if name.startswith("mlflow.source.")}
    return client.create_logged_model(
        run.info.experiment_id,
        name=re.sub(r"[/:.%\"']", "-", model.name),  # MLflow refuses these characters
        source_run_id=run.info.run_id,
        params=run.data.params,
        tags={**source, **model.tags, FILE_HASH: model.sha256, NOTE: model.description},
        model_type=TYPE,
    )


def _add_output(client: MlflowClient, run: Run, model_id: str) -> None:
    """Adds a model to the outputs of a run, unless it is already one of the outputs."""
    known = run.outputs.model_outputs if run.outputs else []
    if model_id not in {output.model_id for output in known}:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step=0)])


def _upload(client: MlflowClient, run_id: str, logged: LoggedModel, model: ExportedModel) -> None:
    """Uploads the content of the model."""
    about = Model(
        artifact_path=logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id
    )
    logging.getLogger("mlflow.pyfunc").setLevel("WARNING")  # suppresses a message about validating the example
    with TemporaryDirectory() as temporary:
        content = model_content(model.onnx_path, model.example)
        pyfunc.save_model(f"{temporary}/model", mlflow_model=about, **content)
        client.log_model_artifacts(logged.model_id, f"{temporary}/model")


def _metrics(client: MlflowClient, run: Run, logged: LoggedModel, model: ExportedModel) -> Iterator[Metric]:
    """Yields the metrics of the model: the final metrics of its run, and the same metrics on the test set.

    All points have the timestamps of the run's metrics, so MLflow stores a point only once, even if it is sent twice.
    """
    known = {"model_id": logged.model_id, "run_id": run.info.run_id}
    if model.dataset is not None:
        known |= {"dataset_name": model.dataset.name, "dataset_digest": model.dataset.digest}
    for final in run.data.metrics:
        if not final.startswith(FINAL):
            continue
        last = client.get_metric_history(run.info.run_id, final)[-1]
        yield Metric(final, last.value, last.timestamp, last.step, **known)
        if (name := final.removeprefix(FINAL)) in model.test:
            yield Metric(metric_on_test(name), float(model.test[name]), last.timestamp, last.step, **known)
