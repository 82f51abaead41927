"""A student in MLflow is one logged model of its run, and the registered model predicts like the exported file."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, LoggedModel, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException

from ensdistill.errors import DataError
from ensdistill_tune.tracking.logged_model import ExportedModel
from ensdistill_tune.tracking.model_registry import register, run_of
from tests.integration.mlflow.mlflow_runs import experiment, new_run
from tests.light_or_dark import classifier, light


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store without a server, shared because creating one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    MlflowClient(uri).create_experiment("facts", artifact_location=(folder / "artifacts").as_uri())
    return uri


@pytest.fixture(params=["sqlite", "http_on_sqlite"])
def uri(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of store in turn, set in the environment from which models are loaded."""
    store = request.getfixturevalue(request.param)
    uri = store if isinstance(store, str) else str(store.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 2, 3), dtype=np.uint8)


def test_a_model_is_loaded_by_its_alias_and_the_alias_moves_to_the_second_version(
    uri: str, image: np.ndarray, tmp_path: Path
) -> None:
    client = MlflowClient(uri)
    run, name = new_run(client).info.run_id, f"student-{tmp_path.name}"
    table = pd.DataFrame({"image": [image[0]]})
    for version, sign in ((1, 1.0), (2, -1.0)):
        file = classifier(tmp_path / f"{version}.onnx", sign)
        model = ExportedModel("tiny-winner", file, image, tags={"study": "tiny"})
        assert register(uri, name, model, run=run, champion=True) == version
        answer = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(table)
        assert answer["probabilities"][0]["light"] == pytest.approx(light(image, sign), rel=1e-5)
        known = client.get_model_version_by_alias(name, "champion")
        assert (int(known.version), known.run_id, known.tags) == (version, run, {"study": "tiny"})
    first = mlflow.pyfunc.load_model(f"models:/{name}/1")  # unchanged, although both belong to the same run
    assert first.predict(table)["probabilities"][0]["light"] == pytest.approx(light(image), rel=1e-5)


def test_model_versions_have_no_alias_unless_requested(uri: str, image: np.ndarray, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    run, name = new_run(client).info.run_id, f"plain-{tmp_path.name}"
    first, second = (ExportedModel("tiny", classifier(tmp_path / f"{s}.onnx", s), image) for s in (1.0, -1.0))
    register(uri, name, first, run=run, champion=True)
    assert register(uri, name, second, run=run) == 2
    assert int(client.get_model_version_by_alias(name, "champion").version) == 1


def test_the_mlflow_run_of_a_trial_is_found(uri: str) -> None:
    client = MlflowClient(uri)
    runs = {trial: new_run(client, tags={"study_id": "a-study", "trial": trial}) for trial in ("7", "8")}
    assert run_of(uri, "facts", "a-study", 8) == runs["8"].info.run_id
    with pytest.raises(DataError, match="no run for trial 9"):
        run_of(uri, "facts", "a-study", 9)
    with pytest.raises(DataError, match="no run for trial 7"):
        run_of(uri, "no such experiment", "a-study", 7)


def test_a_missing_run_is_reported(uri: str, image: np.ndarray, tmp_path: Path) -> None:
    experiment(MlflowClient(uri))
    model = ExportedModel("tiny", classifier(tmp_path / "1.onnx", 1.0), image)
    with pytest.raises(DataError, match="student: MLflow refused to register the model"):
        register(uri, "student", model, run="0" * 32)


def logged_models(client: MlflowClient) -> list[LoggedModel]:
    return list(client.search_logged_models([experiment(client)]))


def test_exporting_a_student_repeatedly_creates_only_one_logged_model_with_its_metrics(
    uri: str, image: np.ndarray, tmp_path: Path
) -> None:
    client = MlflowClient(uri)
    before = {model.model_id for model in logged_models(client)}
    parent, run = new_run(client).info.run_id, new_run(client).info.run_id
    data = Dataset("digits", "a-digest", "code", "{}")
    client.log_inputs(run, [DatasetInput(data)])
    client.log_batch(run, metrics=[Metric("final/nll", 0.25, 1000, 0), Metric("val/nll", 0.5, 900, 3)])
    client.log_param(run, "seed", 3)
    client.set_tag(run, "mlflow.source.name", "a-command")
    file, name = classifier(tmp_path / "1.onnx", 1.0), f"again-{tmp_path.name}"
    model = ExportedModel("tiny.winner", file, image, "A *student*.", test={"nll": 0.75, "flops": 8}, dataset=data)
    assert [register(uri, name, model, run=run, also=[parent]) for _ in range(3)] == [1, 1, 1]
    (logged,) = (model for model in logged_models(client) if model.model_id not in before)
    assert (logged.name, logged.status, logged.source_run_id) == ("tiny-winner", LoggedModelStatus.READY, run)
    assert {(m.key, m.value, m.dataset_name, m.dataset_digest) for m in logged.metrics} == {
        ("final/nll", 0.25, "digits", "a-digest"),
        ("test/nll", 0.75, "digits", "a-digest"),
    }
    assert (logged.params, logged.tags["mlflow.source.name"]) == ({"seed": "3"}, "a-command")
    assert logged.tags["mlflow.note.content"] == "A *student*."
    for one in (run, parent):
        assert [output.model_id for output in client.get_run(one).outputs.model_outputs] == [logged.model_id]
    assert len(client.get_metric_history(run, "final/nll")) == 1
    assert client.get_run(run).data.metrics["test/nll"] == 0.75
    answer = mlflow.pyfunc.load_model(f"models:/{logged.model_id}").predict(pd.DataFrame({"image": [image[0]]}))
    assert answer["probabilities"][0]["light"] == pytest.approx(light(image), rel=1e-5)
    assert register(uri, f"{name}-2", model, run=run) == 1  # another registered model with the same logged model
    assert len(logged_models(client)) == len(before) + 1


def test_an_interrupted_export_is_completed_by_the_next_export(
    uri: str, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(uri)
    run, name = new_run(client).info.run_id, f"interrupted-{tmp_path.name}"
    before = len(logged_models(client))
    model = ExportedModel("tiny", classifier(tmp_path / "1.onnx", 1.0), image)
    with monkeypatch.context() as broken:

        def fails(*_: object) -> None:
            raise MlflowException("the connection is lost")

        broken.setattr(MlflowClient, "log_model_artifacts", fails)
        with pytest.raises(DataError, match="the connection is lost"):
            register(uri, name, model, run=run)
    assert register(uri, name, model, run=run, champion=True) == 1
    assert len(logged_models(client)) == before + 1
    answer = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(pd.DataFrame({"image": [image[0]]}))
    assert answer["probabilities"][0]["light"] == pytest.approx(light(image), rel=1e-5)
