"""Content of a registered student, independent of how it is logged: code, ONNX file, signature, example, requirements.

The model is served without ensdistill and without torch; see `served_student`.
"""

import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Map
from PIL import Image

from ensdistill.data.image_files import MODES

CODE = Path(__file__).with_name("served_student.py")
REQUIRED = ("numpy", "onnxruntime", "pandas", "pillow")  # MLflow adds itself to the requirements


def model_content(onnx_path: Path, example: np.ndarray) -> dict[str, Any]:
    """Returns the arguments of `mlflow.pyfunc.save_model` and `log_model` that describe a student.

    The input is one column `image` with the content of image files, in base64 if the request is JSON. The output has
    the columns `label`, `probability` and `probabilities` (keyed by class name).

    Args:
        onnx_path: ONNX file written by `ensdistill export`.
        example: Example image, a uint8 array of shape (C,H,W), which is stored with the model as a PNG file.
    """
    outputs = (("string", "label"), ("double", "probability"), (Map(DataType.double), "probabilities"))
    return {
        "python_model": str(CODE),
        "artifacts": {"student": str(onnx_path)},
        "signature": ModelSignature(Schema([ColSpec("binary", "image")]), Schema([ColSpec(*one) for one in outputs])),
        "input_example": pd.DataFrame({"image": [_png(example)]}) if len(example) in MODES else None,
        "pip_requirements": [f"{package}=={version(package)}" for package in REQUIRED],
    }


def _png(image: np.ndarray) -> bytes:
    """Returns an image of shape (C,H,W) as the content of a PNG file."""
    file, pixels = io.BytesIO(), image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()
