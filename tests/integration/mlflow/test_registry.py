"""A student in MLflow's model registry is loaded by name and classifies as its file does."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from ensdistill.errors import DataError
from ensdistill_tune.tracking.model_registry import register, run_of
from tests.integration.mlflow.mlflow_runs import experiment, new_run
from tests.light_or_dark import classifier, light


@pytest.fixture(params=["sqlite", "http_on_sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of store in turn; what loads a model finds it as its user would set it."""
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        MlflowClient(uri).create_experiment("facts", artifact_location=(tmp_path / "artifacts").as_uri())
    else:
        uri = str(request.getfixturevalue(request.param).uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 2, 3), dtype=np.uint8)


def test_a_model_is_loaded_by_its_alias_which_moves_to_the_second_version(
    uri: str, image: np.ndarray, tmp_path: Path
) -> None:
    client = MlflowClient(uri)
    run, name = new_run(client).info.run_id, f"student-{tmp_path.name}"
    table = pd.DataFrame({"image": [image[0]]})
    for version, sign in ((1, 1.0), (2, -1.0)):
        file = classifier(tmp_path / f"{version}.onnx", sign)
        tags = {"study": "tiny", "val/nll": "0.1"}
        assert register(uri, name, file, image, run=run, tags=tags, champion=True) == version
        answer = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(table)
        assert answer["probabilities"][0]["light"] == pytest.approx(light(image, sign), rel=1e-5)
        known = client.get_model_version_by_alias(name, "champion")
        assert (int(known.version), known.run_id, known.tags) == (version, run, tags)
    first = mlflow.pyfunc.load_model(f"models:/{name}/1")  # as it was, though both are of one run
    assert first.predict(table)["probabilities"][0]["light"] == pytest.approx(light(image), rel=1e-5)


def test_versions_have_no_alias_unless_requested(uri: str, image: np.ndarray, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    run, name = new_run(client).info.run_id, f"plain-{tmp_path.name}"
    file = classifier(tmp_path / "1.onnx", 1.0)
    register(uri, name, file, image, run=run, champion=True)
    assert register(uri, name, file, image, run=run) == 2
    assert int(client.get_model_version_by_alias(name, "champion").version) == 1


def test_the_run_of_a_trial_is_found(uri: str) -> None:
    client = MlflowClient(uri)
    runs = {trial: new_run(client, tags={"study_id": "a-study", "trial": trial}) for trial in ("7", "8")}
    assert run_of(uri, "facts", "a-study", 8) == runs["8"].info.run_id
    with pytest.raises(DataError, match="no run of trial 9"):
        run_of(uri, "facts", "a-study", 9)
    with pytest.raises(DataError, match="no run of trial 7"):
        run_of(uri, "no such experiment", "a-study", 7)


def test_a_missing_run_is_reported(uri: str, image: np.ndarray, tmp_path: Path) -> None:
    experiment(MlflowClient(uri))
    with pytest.raises(DataError, match="student: MLflow refused to register the model"):
        register(uri, "student", classifier(tmp_path / "1.onnx", 1.0), image, run="0" * 32)
