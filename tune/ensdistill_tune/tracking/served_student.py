"""The code of a registered student: MLflow stores this file in the model and runs it wherever the model is loaded.

It imports only MLflow, pandas, NumPy, ONNX Runtime and Pillow, because ensdistill need not be installed where the model
is loaded.
"""

import base64
import binascii
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from PIL import Image, ImageOps, UnidentifiedImageError

MODES = {1: "L", 3: "RGB"}  # Pillow's mode for each number of channels
Image.init()
FORMATS = [name for name in Image.ID if name != "EPS"]  # an EPS file contains a program, which Ghostscript would run


class ServedStudent(PythonModel):
    """Classifier of images of any size; the ONNX file resizes the images."""

    def load_context(self, context: Any) -> None:
        """Opens the ONNX file of the model."""
        self._session = onnxruntime.InferenceSession(context.artifacts["student"], providers=["CPUExecutionProvider"])
        self._channels = self._session.get_inputs()[0].shape[3]
        self._labels = json.loads(self._session.get_modelmeta().custom_metadata_map["class_names"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Returns one row for each image: the most likely class, its probability, and all probabilities by class name.

        Args:
            context: The context of the model, which is not used.
            model_input: Table with the column `image`; MLflow also accepts a dictionary. Each image is the content of
                an image file (bytes, or base64 as in JSON), a `pathlib.Path`, or a uint8 array of shape (H,W) or
                (H,W,C).
            params: Parameters, which are not used.

        Raises:
            MlflowException: An image cannot be read.
        """
        return pd.DataFrame([self._row(n, image) for n, image in enumerate(model_input["image"], 1)])

    def _row(self, number: int, image: Any) -> dict[str, Any]:
        try:
            pixels = self._pixels(image)
        except Exception as error:  # decoders raise a dozen different exceptions for a damaged file
            unknown = isinstance(error, UnidentifiedImageError)  # the message of this error contains a memory address
            cause = "it is not an image that Pillow can read" if unknown else error
            raise MlflowException.invalid_parameter_value(f"image {number}: cannot be read: {cause}") from error
        (probabilities,) = self._session.run(["probabilities"], {"images": pixels[None]})[0].astype(float)
        best = int(probabilities.argmax())
        by_name = dict(zip(self._labels, probabilities.tolist(), strict=True))
        return {"label": self._labels[best], "probability": float(probabilities[best]), "probabilities": by_name}

    def _pixels(self, image: Any) -> np.ndarray:
        """Returns an image as a uint8 array of shape (H,W,C)."""
        if isinstance(image, list):  # MLflow converts the arrays of a dictionary to lists
            image = np.array(image)
            image = image.astype(np.uint8) if image.dtype == int and 0 <= image.min() <= image.max() < 256 else image
        if isinstance(image, np.ndarray):
            pixels = image[:, :, None] if image.ndim == 2 else image
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != self._channels or not pixels.size:
                given = f"{image.dtype} {image.shape}"
                raise ValueError(f"an array must be uint8 (H,W,{self._channels}), got {given}")
            return pixels
        if self._channels not in MODES:
            raise ValueError(
                f"image files have 1 or 3 channels, but the student requires {self._channels}; give an array"
            )
        with Image.open(_stream(image), formats=FORMATS) as opened:
            opaque = _opaque(ImageOps.exif_transpose(opened))
        return np.asarray(opaque.convert(MODES[self._channels])).reshape(*opaque.size[::-1], self._channels)


def _stream(image: Any) -> Any:
    """Returns an image file that Pillow can open: a stream in memory, or a path."""
    if isinstance(image, str):  # a string is never a path, because a request must not open files on the server
        try:
            return io.BytesIO(base64.b64decode("".join(image.split()), validate=True))
        except binascii.Error as error:
            raise ValueError("a string must be base64; give the path of a file as a pathlib.Path") from error
    if isinstance(image, bytes | bytearray | memoryview):
        return io.BytesIO(bytes(image))
    if isinstance(image, Path):
        return image
    raise ValueError(f"must be bytes, base64, a pathlib.Path or an array, got {type(image).__name__}")


def _opaque(image: Image.Image) -> Image.Image:
    """Returns the image on a white background with at most 8 bits per channel; 16-bit gray values are rounded."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels have 32 bits (mode {image.mode}); save it with 8 or 16 bits")
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


set_model(ServedStudent())
