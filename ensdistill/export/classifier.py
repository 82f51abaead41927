"""An exported student as a classifier, loaded from any export format."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ensdistill.data import Shape
from ensdistill.data.image_files import Resize
from ensdistill.errors import ConfigError, DataError
from ensdistill.export.student_file import DEFAULT_RESIZE, load_deployable, parse_metadata, resize_in
from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.optional import need
from ensdistill.runtime.weights import STUDENT_FILE, read_metadata

PT2_FILE, ONNX_FILE = "student.pt2", "student.onnx"

ClassifierOutput = tuple[np.ndarray, np.ndarray]  # logits and probabilities, both float32 of shape (N,classes)


@dataclass(frozen=True)
class Classifier:
    """Classifier that runs on the CPU and accepts images of any size.

    Attributes:
        path: The exported file.
        shape: Channels, height and width of the network's input images; images of a different size are resized.
        class_names: Names of the classes in the order of the outputs.
        answer: uint8 images of shape (N,H,W,C) with values from 0 to 255 -> logits and probabilities.
        resize: How images with a different aspect ratio were resized to the input shape during training.
    """

    path: Path
    shape: Shape
    class_names: tuple[str, ...]
    answer: Callable[[np.ndarray], ClassifierOutput]
    resize: Resize = DEFAULT_RESIZE

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the class probabilities of images.

        Args:
            images: uint8 images of shape (N,H,W,C), of any height and width, with values from 0 to 255.

        Returns:
            float32 probabilities of shape (N,classes).

        Raises:
            ConfigError: The images have the wrong type or shape.
        """
        channels = self.shape[0]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels or not all(images.shape[1:]):
            given = f"{images.dtype} {images.shape}"
            raise ConfigError(f"images: {self.path} requires uint8 (N,H,W,{channels}), got {given}; convert them")
        return self.answer(images)[1]


def open_classifier(path: str | Path) -> Classifier:
    """Opens an exported file, or the exported file in a folder.

    In a folder with several exported files, the order of preference is student.safetensors, student.onnx, student.pt2.
    Safetensors and ONNX files are safe to open from any source. Loading a .pt2 file can execute code.

    Args:
        path: File or folder written by `ensdistill export`.

    Raises:
        DataError: The file does not exist, is damaged, or was not written by `ensdistill export`.
    """
    path = _file_of(Path(path))
    opens: dict[str, Callable[[Path], Classifier]]
    opens = {".safetensors": open_safetensors, ".onnx": open_onnx, ".pt2": open_pt2}
    if path.suffix not in opens:
        raise DataError(
            f"{path}: must be a file written by `ensdistill export` ({', '.join(opens)}); "
            "pass such a file or its folder"
        )
    return opens[path.suffix](path)


def open_safetensors(path: Path, run_imported: bool = False) -> Classifier:
    """Returns the classifier in a safetensors file; arguments and errors are the same as for `load_deployable`."""
    network, notes = load_deployable(path, run_imported), read_metadata(path)
    return Classifier(path, *parse_metadata(path, notes), _by_torch(network), resize_in(path, notes))


def open_onnx(path: Path) -> Classifier:
    """Returns a classifier that runs an ONNX file with ONNX Runtime.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        DataError: The file is damaged, or was not written by `ensdistill export`.
    """
    onnxruntime = need("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as exceptions, so log lines are redundant
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen different errors for a damaged file
        raise DataError(f"{path}: damaged, or not an ONNX file; export the student again") from error
    notes = session.get_modelmeta().custom_metadata_map

    def answer(images: np.ndarray) -> ClassifierOutput:
        return tuple(session.run(["logits", "probabilities"], {"images": images}))

    return Classifier(path, *parse_metadata(path, notes), answer, resize_in(path, notes))


def open_pt2(path: Path) -> Classifier:
    """Returns the classifier in a torch.export file; loading such a file can execute code.

    Raises:
        DataError: The file is damaged, or was not written by `ensdistill export`.
    """
    notes = {"class_names": ""}  # torch fills in only the keys that the dictionary already has
    try:
        with quietly():
            program = torch.export.load(path, extra_files=notes).module()
    except Exception as error:  # torch raises a dozen different errors for a damaged file
        raise DataError(f"{path}: damaged, or not a torch.export file; export the student again") from error
    return Classifier(path, *parse_metadata(path, notes), _by_torch(program), resize_in(path, notes))


@contextmanager
def quietly() -> Iterator[None]:
    """Suppresses warnings and log lines inside the block; torch's exporters print many that users do not need."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _by_torch(network: torch.nn.Module) -> Callable[[np.ndarray], ClassifierOutput]:
    """Returns a function that runs a torch network on NumPy arrays."""

    def answer(images: np.ndarray) -> ClassifierOutput:
        with torch.no_grad():
            logits, probabilities = network(torch.from_numpy(np.ascontiguousarray(images)))
        return logits.numpy(), probabilities.numpy()

    return answer


def _file_of(path: Path) -> Path:
    """Returns the file itself, or the preferred exported file in a folder; raises DataError if there is none."""
    if not path.exists():
        raise DataError(f"{path}: no such model; give a file or folder written by `ensdistill export`")
    if path.is_file():
        return path
    for name in (STUDENT_FILE, ONNX_FILE, PT2_FILE):
        if (path / name).is_file():
            return path / name
    export = command_line("ensdistill", "export", "RUN", options=[("--out", path)])
    raise DataError(f"{path}: no exported model in this folder; write one with `{export}`")
