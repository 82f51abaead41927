"""A shipped student, ready to classify, from whatever kind of file."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ensdistill.data import Shape
from ensdistill.errors import ConfigError, DataError
from ensdistill.export.student_file import load_deployable, parse_metadata
from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.optional import need
from ensdistill.runtime.weights import STUDENT_FILE, read_metadata

PT2_FILE, ONNX_FILE = "student.pt2", "student.onnx"

ClassifierOutput = tuple[np.ndarray, np.ndarray]  # logits and probabilities, float32 (N,classes)


@dataclass(frozen=True)
class Classifier:
    """Images of one shape into one of several classes, on the CPU."""

    path: Path
    shape: Shape  # of an image (C,H,W)
    class_names: tuple[str, ...]
    answer: Callable[[np.ndarray], ClassifierOutput]  # of uint8 images (N,*shape), 0 to 255

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (N,classes) of uint8 images (N,*shape)."""
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            wanted = ",".join(map(str, self.shape))
            raise ConfigError(f"images: {images.dtype} of shape {images.shape}; {self.path} takes uint8 (N,{wanted})")
        return self.answer(images)[1]


def open_classifier(path: str | Path) -> Classifier:
    """Opens an exported file, or the first of student.safetensors, student.onnx and student.pt2 in a folder.

    Safetensors and ONNX files are safe to open whoever wrote them; of a .pt2 file torch may run what is in it.
    Raises DataError if there is none, or it is damaged or somebody else's.
    """
    path = _file_of(Path(path))
    opens: dict[str, Callable[[Path], Classifier]]
    opens = {".safetensors": open_safetensors, ".onnx": open_onnx, ".pt2": open_pt2}
    if path.suffix not in opens:
        raise DataError(f"{path}: none of the files that `ensdistill export` writes ({', '.join(opens)})")
    return opens[path.suffix](path)


def open_safetensors(path: Path, run_imported: bool = False) -> Classifier:
    """See `load_deployable`."""
    network = load_deployable(path, run_imported)
    return Classifier(path, *parse_metadata(path, read_metadata(path)), _by_torch(network))


def open_onnx(path: Path) -> Classifier:
    """Through ONNX Runtime."""
    onnxruntime = need("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is told by the error
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime names a dozen different errors for a damaged file
        raise DataError(f"{path}: damaged or no ONNX file") from error
    notes = parse_metadata(path, session.get_modelmeta().custom_metadata_map)
    return Classifier(path, *notes, lambda images: tuple(session.run(["logits", "probabilities"], {"images": images})))


def open_pt2(path: Path) -> Classifier:
    """Through torch.export."""
    notes = {"class_names": ""}  # torch fills no dictionary that is empty
    try:
        with quietly():
            program = torch.export.load(path, extra_files=notes).module()
    except Exception as error:  # torch names a dozen different errors for a damaged file
        raise DataError(f"{path}: damaged or no file of torch.export") from error
    return Classifier(path, *parse_metadata(path, notes), _by_torch(program))


@contextmanager
def quietly() -> Iterator[None]:
    """Inside the block neither warnings nor log lines: what torch's exporters say is meant for their developers."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _by_torch(network: torch.nn.Module) -> Callable[[np.ndarray], ClassifierOutput]:
    def answer(images: np.ndarray) -> ClassifierOutput:
        with torch.no_grad():
            logits, probabilities = network(torch.from_numpy(np.ascontiguousarray(images)))
        return logits.numpy(), probabilities.numpy()

    return answer


def _file_of(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path}: there is no such model; give a file or folder that `ensdistill export` has written")
    if path.is_file():
        return path
    for name in (STUDENT_FILE, ONNX_FILE, PT2_FILE):
        if (path / name).is_file():
            return path / name
    export = command_line("ensdistill", "export", "RUN", options=[("--out", path)])
    raise DataError(f"{path}: no exported model in this folder; write one with `{export}`")
