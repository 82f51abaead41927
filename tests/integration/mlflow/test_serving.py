"""`mlflow models serve` returns the class of a photo although neither ensdistill nor torch can be imported."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from mlflow import MlflowClient
from PIL import Image
from sklearn.datasets import load_sample_image

from ensdistill import export_student, load_config
from ensdistill_tune.tracking.logged_model import ExportedModel
from ensdistill_tune.tracking.model_registry import register
from tests.commands import call
from tests.integration.mlflow.mlflow_runs import new_run
from tests.servers import free_port, listens, wait_until
from tests.unit.core.export.test_exporter import colored, made

REFUSED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ensdistill", "ensdistill_tune", "torch", "onnx"):
            raise ImportError(f"{name} is not installed where models are served")
sys.meta_path.insert(0, Refuse())
"""


@contextmanager
def served(model: str, uri: str, folder: Path) -> Iterator[str]:
    """Yields the address at which MLflow serves a model."""
    (folder / "sitecustomize.py").write_text(REFUSED)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks for uvicorn on this path
    environment = kept | {"PATH": path, "PYTHONPATH": str(folder), "MLFLOW_TRACKING_URI": uri}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: process.poll() is not None or listens(port), "the model is served", seconds=200)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def ask(address: str, images: list[bytes]) -> tuple[int, Any]:
    """Returns status and content of the response to image files, sent as MLflow documents: base64 strings in JSON."""
    table = {"columns": ["image"], "data": [[base64.b64encode(image).decode()] for image in images]}
    body = json.dumps({"dataframe_split": table}).encode()
    request = Request(address, body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def photo(width: int, height: int) -> bytes:
    """Returns a real photo as a JPEG file of the given size."""
    file = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).resize((width, height)).save(file, "JPEG")
    return file.getvalue()


def test_a_served_student_returns_the_class_name_of_a_photo(tmp_path: Path) -> None:
    run = made(load_config("kd", ["data.train_size=40", "training.batch_size=10"]), colored())
    folder = export_student(run, tmp_path / "export", formats=["onnx"]).folder
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    client.create_experiment("facts", artifact_location=(tmp_path / "artifacts").as_uri())
    model = ExportedModel("photos", folder / "student.onnx", run.data.validation.images[0].numpy())
    register(uri, "photos", model, run=new_run(client).info.run_id, champion=True)
    (tmp_path / "a.jpg").write_bytes(photo(451, 300))
    (expected,) = json.loads(call("ensdistill", "predict", folder, tmp_path / "a.jpg", "--format", "json").out)
    with served("models:/photos@champion", uri, tmp_path) as address:
        status, answer = ask(address, [photo(451, 300), photo(300, 451)])
        assert status == 200, answer
        first, second = answer["predictions"]
        assert first["label"] == expected["class"]
        assert first["probability"] == pytest.approx(expected["probability"], abs=0.01)
        assert first["probabilities"] == pytest.approx(expected["probabilities"], abs=0.01)
        assert set(second["probabilities"]) == {"cat", "dog", "Käse, alt"}
        status, answer = ask(address, [photo(451, 300), b"no image"])
        assert (status, "image 2: cannot be read" in json.dumps(answer)) == (400, True)
