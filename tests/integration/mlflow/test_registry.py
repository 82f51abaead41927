"""A student in MLflow's model registry is loaded by name and classifies as its file does."""

from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest
from mlflow import MlflowClient
from onnx import TensorProto, helper

from ensdistill.errors import DataError
from ensdistill_tune.tracking.model_registry import register, run_of
from tests.integration.mlflow.mlflow_runs import experiment, new_run


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
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 1, 2, 3), dtype=np.uint8)


def classifier(path: Path, sign: float) -> Path:
    """Two classes: logits are plus and minus the sum of the pixels over 255, times a sign."""
    weight = np.array([[sign / 255, -sign / 255]] * 6, np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("logits", "probabilities")]
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 2, 3])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [onnx.numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def expected(images: np.ndarray, sign: float) -> np.ndarray:
    total = sign * images.reshape(len(images), -1).sum(axis=1) / 255
    return np.stack([total, -total], axis=1)


def test_a_model_is_loaded_by_its_alias_which_moves_to_the_second_version(
    uri: str, images: np.ndarray, tmp_path: Path
) -> None:
    client = MlflowClient(uri)
    run, name = new_run(client).info.run_id, f"student-{tmp_path.name}"
    for version, sign in ((1, 1.0), (2, -1.0)):
        file = classifier(tmp_path / f"{version}.onnx", sign)
        tags = {"study": "tiny", "val/nll": "0.1"}
        assert register(uri, name, file, images[:1], run=run, tags=tags, champion=True) == version
        loaded = mlflow.pyfunc.load_model(f"models:/{name}@champion")
        answer = loaded.predict(images)
        np.testing.assert_allclose(answer["logits"], expected(images, sign), rtol=1e-5)
        np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, rtol=1e-5)
        known = client.get_model_version_by_alias(name, "champion")
        assert (int(known.version), known.run_id, known.tags) == (version, run, tags)
    first = mlflow.pyfunc.load_model(f"models:/{name}/1")  # as it was, though both are of one run
    np.testing.assert_allclose(first.predict(images)["logits"], expected(images, 1.0), rtol=1e-5)


def test_the_model_has_a_signature(uri: str, images: np.ndarray, tmp_path: Path) -> None:
    run, name = new_run(MlflowClient(uri)).info.run_id, f"signed-{tmp_path.name}"
    register(uri, name, classifier(tmp_path / "1.onnx", 1.0), images[:1], run=run)
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/1")
    (taken,) = loaded.metadata.signature.inputs.inputs
    assert (taken.type, taken.shape) == (np.dtype("uint8"), (-1, 1, 2, 3))
    given = {one.name: (one.type, one.shape) for one in loaded.metadata.signature.outputs.inputs}
    assert given == dict.fromkeys(("logits", "probabilities"), (np.dtype("float32"), (-1, 2)))
    np.testing.assert_array_equal(loaded.input_example, images[:1])
    with pytest.raises(mlflow.exceptions.MlflowException, match="shape"):
        loaded.predict(images[:, :, :1])


def test_versions_have_no_alias_unless_requested(uri: str, images: np.ndarray, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    run, name = new_run(client).info.run_id, f"plain-{tmp_path.name}"
    file = classifier(tmp_path / "1.onnx", 1.0)
    register(uri, name, file, images[:1], run=run, champion=True)
    assert register(uri, name, file, images[:1], run=run) == 2
    assert int(client.get_model_version_by_alias(name, "champion").version) == 1


def test_the_run_of_a_trial_is_found(uri: str) -> None:
    client = MlflowClient(uri)
    runs = {trial: new_run(client, tags={"study_id": "a-study", "trial": trial}) for trial in ("7", "8")}
    assert run_of(uri, "facts", "a-study", 8) == runs["8"].info.run_id
    with pytest.raises(DataError, match="no run of trial 9"):
        run_of(uri, "facts", "a-study", 9)
    with pytest.raises(DataError, match="no run of trial 7"):
        run_of(uri, "no such experiment", "a-study", 7)


def test_a_missing_run_is_reported(uri: str, images: np.ndarray, tmp_path: Path) -> None:
    experiment(MlflowClient(uri))
    with pytest.raises(DataError, match="student: MLflow refused to register the model"):
        register(uri, "student", classifier(tmp_path / "1.onnx", 1.0), images[:1], run="0" * 32)
