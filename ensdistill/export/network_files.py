"""Files that contain a student's network; each file is compared with the student before it is published."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensdistill.errors import ExportError
from ensdistill.export.classifier import (
    ONNX_FILE,
    PT2_FILE,
    Classifier,
    open_onnx,
    open_pt2,
    open_safetensors,
    quietly,
)
from ensdistill.export.student_file import DeployableClassifier, DistillationRun
from ensdistill.runtime.weights import STUDENT_FILE, save_weights

LIMIT = 1e-4  # maximum difference between a file's logits and the student's logits
BATCHES = (1, 7, 128)  # batch sizes of the comparison
PHOTOS = ((300, 451), (451, 300))  # heights and widths of the enlarged images in the second comparison
RESIZED_LIMIT = (
    0.01  # maximum difference between probabilities; a resized pixel can differ by one gray level between runtimes
)


def write_networks(run: DistillationRun, folder: Path, formats: Sequence[str]) -> tuple[dict[str, float], float]:
    """Writes and verifies the files that contain the network.

    Args:
        run: The student, its settings and its data.
        folder: Folder to which the files are written.
        formats: Names from FORMATS.

    Returns:
        Two values. The first maps each file name to the file's largest logit difference from the student on validation
        images. The second is the largest probability difference between any file and the student on enlarged validation
        images. The exported networks resize the enlarged images to their input size.

    Raises:
        ExportError: A file cannot be written, or differs from the student by more than LIMIT or RESIZED_LIMIT.
    """
    student = run.deployable
    program: Any = _program(student, run) if {"pt2", "onnx"} & set(formats) else None
    files: list[Classifier] = []
    if "safetensors" in formats:
        save_weights(folder / STUDENT_FILE, student.network, run.metadata)
        files.append(open_safetensors(folder / STUDENT_FILE, True))
    if "pt2" in formats:
        with quietly():
            torch.export.save(program, folder / PT2_FILE, extra_files=run.metadata)
        files.append(open_pt2(folder / PT2_FILE))
    if "onnx" in formats:
        _write_onnx(program, folder / ONNX_FILE, run.metadata)
        files.append(open_onnx(folder / ONNX_FILE))
    images = run.data.validation.images[: sum(BATCHES)].cpu()
    differences = {file.path.name: _checked(student, file, images) for file in files}
    return differences, max((_checked_resized(student, file, images[:4]) for file in files), default=0.0)


def _program(student: DeployableClassifier, run: DistillationRun) -> torch.export.ExportedProgram:
    """Returns the student as one graph that accepts any batch size and any image size."""
    channels, height, width = run.shape
    # No size is 1 and no two sizes are equal, because torch would treat such sizes as constants.
    images = torch.zeros(2, height + 3, width + 5, channels, dtype=torch.uint8)
    try:
        with quietly():
            return torch.export.export(student, (images,), dynamic_shapes=_any_size())
    except Exception as error:  # torch raises a dozen different errors for networks that it cannot trace
        raise _cannot("pt2 and onnx", error) from error


def _any_size() -> dict[str, Any]:
    """Returns the names of the dimensions with variable size."""
    names = ("batch", "height", "width")
    return {"images": {axis: torch.export.Dim(name) for axis, name in enumerate(names)}}


def _write_onnx(program: Any, file: Path, metadata: Mapping[str, str]) -> None:
    """Writes an ONNX file with metadata."""
    try:
        with quietly():
            written: Any = torch.onnx.export(
                program,
                input_names=["images"],
                output_names=["logits", "probabilities"],
                dynamic_shapes=_any_size(),  # the dimensions are already dynamic; this only names them
                dynamo=True,
                verbose=False,
            )
            written.model.metadata_props.update(metadata)
            written.save(file, external_data=False)
    except Exception as error:  # torch and ONNX raise a dozen different errors for networks that they cannot write
        raise _cannot("onnx", error) from error


def _cannot(formats: str, error: Exception) -> ExportError:
    """Returns the error for a network that a format does not support."""
    reason = " ".join(str(error).split())[:200]
    return ExportError(f"this network cannot be written as {formats} ({reason}); select other formats with --formats")


def _checked(student: DeployableClassifier, file: Classifier, images: Tensor) -> float:
    """Returns the largest logit difference; raises ExportError if it exceeds LIMIT."""
    worst, start = 0.0, 0
    for size in BATCHES:
        batch = images[start : start + size].permute(0, 2, 3, 1)
        if len(batch):
            worst = float(np.maximum(worst, _difference(student, file, batch, 0)))  # NaN stays NaN
        start += size
    if not worst <= LIMIT:
        raise _differs(file, f"{worst:.3g} in a logit, more than {LIMIT:g}")
    return worst


def _checked_resized(student: DeployableClassifier, file: Classifier, images: Tensor) -> float:
    """Returns the largest probability difference on enlarged images; raises ExportError if it exceeds RESIZED_LIMIT."""
    worst = float(np.max([_difference(student, file, _enlarged(images, *size), 1) for size in PHOTOS]))  # NaN stays NaN
    if not worst <= RESIZED_LIMIT:
        raise _differs(file, f"{worst:.3g} in a probability of a resized image, more than {RESIZED_LIMIT:g}")
    return worst


def _enlarged(images: Tensor, height: int, width: int) -> Tensor:
    """Enlarges images (N,C,H,W) by repeating pixels; returns them as (N,height,width,C)."""
    rows, columns = (torch.arange(n) * old // n for n, old in zip((height, width), images.shape[2:], strict=True))
    return images[:, :, rows][:, :, :, columns].permute(0, 2, 3, 1)


def _difference(student: DeployableClassifier, file: Classifier, batch: Tensor, output: int) -> float:
    """Returns the largest difference between student and file in one output (index 0: logits, 1: probabilities)."""
    with torch.no_grad():
        expected = student(batch)[output].numpy()
    return float(np.abs(file.answer(batch.numpy())[output] - expected).max())


def _differs(file: Classifier, difference: str) -> ExportError:
    """Returns the error for a file that does not reproduce the student."""
    return ExportError(
        f"{file.path.name}: differs from the student by {difference}; nothing was written. Select other formats with "
        "--formats"
    )
