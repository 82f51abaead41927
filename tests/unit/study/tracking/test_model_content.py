"""The content of a registered student: its signature, and predictions for files, paths and arrays."""

import ast
import base64
import io
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from ensdistill_tune.tracking import served_student
from ensdistill_tune.tracking.model_content import model_content
from tests.light_or_dark import classifier, light

GRAY = np.arange(60, dtype=np.uint8).reshape(5, 12)


def saved(folder: Path, channels: int = 1) -> Any:
    """Returns a model that MLflow has saved and loaded."""
    content = model_content(classifier(folder / "student.onnx", 1.0, channels), np.zeros((channels, 2, 3), np.uint8))
    mlflow.pyfunc.save_model(str(folder / "model"), **content)
    return mlflow.pyfunc.load_model(str(folder / "model"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return saved(tmp_path_factory.mktemp("gray"))


def file_of(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


PNG = file_of(Image.fromarray(GRAY))


def test_the_signature_has_one_binary_input_column_and_three_named_outputs(model: Any) -> None:
    signature = model.metadata.signature
    assert [(one.name, str(one.type)) for one in signature.inputs.inputs] == [("image", "DataType.binary")]
    assert [one.name for one in signature.outputs.inputs] == ["label", "probability", "probabilities"]
    assert Image.open(io.BytesIO(model.input_example["image"][0])).size == (3, 2)


def test_the_served_model_requires_only_pinned_packages_and_not_torch(tmp_path: Path) -> None:
    lines = model_content(tmp_path / "student.onnx", np.zeros((1, 2, 3), np.uint8))["pip_requirements"]
    assert [line.split("==")[0] for line in lines] == ["numpy", "onnxruntime", "pandas", "pillow"]
    code = ast.parse(Path(served_student.__file__).read_text())
    imports = {name.name for node in ast.walk(code) if isinstance(node, ast.Import) for name in node.names}
    imports |= {str(node.module).split(".")[0] for node in ast.walk(code) if isinstance(node, ast.ImportFrom)}
    others = {"mlflow", "numpy", "onnxruntime", "pandas", "PIL"}
    assert imports - set(sys.stdlib_module_names) == others


def test_files_and_base64_strings_and_paths_and_arrays_give_the_same_prediction(model: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    images = [PNG, base64.b64encode(PNG).decode(), tmp_path / "a.png", GRAY, GRAY[:, :, None]]
    answer = model.predict(pd.DataFrame({"image": images}))
    assert list(answer["label"]) == ["light"] * len(images)
    p = light(GRAY)
    np.testing.assert_allclose(answer["probability"], p, rtol=1e-6)
    assert [*answer["probabilities"]] == [pytest.approx({"light": p, "dark": 1 - p}, rel=1e-6)] * len(images)


@pytest.mark.parametrize("images", [[PNG], [GRAY, GRAY], np.stack([GRAY, GRAY])], ids=["file", "arrays", "batch"])
def test_a_dictionary_is_accepted_like_a_table(model: Any, images: Any) -> None:
    answer = model.predict({"image": images})
    np.testing.assert_allclose(answer["probability"], [light(GRAY)] * len(images), rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (b"no image", "image 2: cannot be read: it is not an image"),
        (PNG[:40], "image 2: cannot be read: "),
        ("/etc/hostname.", "a string must be base64; give the path of a file as a pathlib.Path"),
        (Path("gone.png"), "No such file"),
        (GRAY.astype(float), r"must be uint8 \(H,W,1\), got float64 \(5, 12\)"),
        (np.zeros((5, 12, 3), np.uint8), r"must be uint8 \(H,W,1\), got uint8 \(5, 12, 3\)"),
        (np.zeros((0, 12), np.uint8), r"must be uint8 \(H,W,1\)"),
        (3, "must be bytes, base64, a pathlib.Path or an array, got int"),
        (file_of(Image.new("F", (2, 2)), "TIFF"), "its pixels have 32 bits"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n", "image 2: cannot be read: it is not an image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_image_that_cannot_be_read_is_reported_with_the_cause(model: Any, image: Any, cause: str) -> None:
    with pytest.raises(MlflowException, match=cause):
        model.predict(pd.DataFrame({"image": [PNG, image]}))


def test_photos_are_rotated_upright_and_transparency_becomes_white(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was rotated to the right
    half = Image.new("RGBA", (6, 4), (255, 0, 0, 0))
    student = saved(tmp_path, 3).unwrap_python_model()
    np.testing.assert_array_equal(student._pixels(file_of(Image.fromarray(rgb), exif=exif)), np.rot90(rgb, -1))
    np.testing.assert_array_equal(student._pixels(file_of(half)), np.full((4, 6, 3), 255))
    deep = (np.arange(24, dtype=np.uint16) * 2570).reshape(4, 6)
    shallow = (np.arange(24) * 10).reshape(4, 6)
    np.testing.assert_array_equal(student._pixels(file_of(Image.fromarray(deep)))[:, :, 0], shallow)
