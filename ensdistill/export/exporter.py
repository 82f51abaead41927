"""Exports a student to deployable formats; each file is verified against the student before it is published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensdistill.config import to_yaml
from ensdistill.data import Split
from ensdistill.errors import ConfigIssue, ExportError
from ensdistill.evaluation.evaluator import Evaluator, Metrics
from ensdistill.evaluation.latency import InferenceCost, prices
from ensdistill.evaluation.plausibility import student_warnings, teacher_warnings
from ensdistill.evaluation.tables import teacher_rows
from ensdistill.export.classifier import (
    ONNX_FILE,
    PT2_FILE,
    Classifier,
    open_onnx,
    open_pt2,
    open_safetensors,
    quietly,
)
from ensdistill.export.format_names import FORMATS
from ensdistill.export.model_card import StudyContext, model_card
from ensdistill.export.student_file import CONFIG_FILE, DeployableClassifier, DistillationRun, claim_folder
from ensdistill.runtime.files import atomic_directory_update, write_text
from ensdistill.runtime.optional import need
from ensdistill.runtime.randomness import deterministic
from ensdistill.runtime.weights import STUDENT_FILE, save_weights

LIMIT = 1e-4  # maximum difference between a logit of the student and of its file
BATCHES = (1, 7, 128)  # batch sizes of the comparison
CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class ExportResult:
    """Content of the folder of an export.

    Attributes:
        folder: The folder.
        sizes: Size of each file in bytes.
        differences: Largest difference of a logit from the student, for each file with a network.
        checked: Number of validation images in the comparison.
        metrics: Metrics on validation images by network.
        prices: Inference cost of `student` and, if available, `ensemble`.
        device: Device of the time measurement.
        warnings: Warnings about images, teachers and student, as rows of `ConfigIssue.as_row`.
    """

    folder: Path
    sizes: dict[str, int]
    differences: dict[str, float]
    checked: int
    metrics: dict[str, Metrics]
    prices: dict[str, InferenceCost]
    device: str
    warnings: list[dict[str, Any]]

    def in_words(self) -> str:
        """Returns the conditions of the measurements as text."""
        return (
            f"logits: compared on {self.checked} validation images, in batches of {', '.join(map(str, BATCHES))}\n"
            "cost: measured with BatchNorm folded into convolutions\n"
            f"times: medians in PyTorch on one thread ({self.device}), measured alternately"
        )


def export_student(
    run: DistillationRun,
    out: str | Path,
    weights_license: str = "",
    findings: StudyContext | None = None,
    formats: Sequence[str] = FORMATS,
) -> ExportResult:
    """Writes settings, student and model card: all files, or none if one of them fails verification.

    Args:
        run: The student, its settings and its data.
        out: Folder of the export.
        weights_license: License of the weights, an SPDX identifier; empty if not stated.
        findings: Information of a study for the model card.
        formats: Names from FORMATS.

    Raises:
        ConfigError: A required library is missing.
        DataError: The folder cannot be written or contains another student.
        ExportError: A file cannot be written, or its logits differ from the student by more than LIMIT.
    """
    settings = _settings(run)
    folder = claim_folder(Path(out), run.metadata, lambda file: file.read_text(encoding="utf-8") == settings)
    for library in ("onnxscript", "onnxruntime") if "onnx" in formats else ():
        need(library)  # checked before any measurement
    with deterministic(run.config.training.threads):
        evaluator = Evaluator(run.ensemble, run.data, run.data.validation, run.config.metrics)
        student, teachers = evaluator.student(run.network), evaluator.teachers()
    metrics = {"student": student} | teacher_rows(teachers)
    warnings = _warnings(run, student, teachers, findings or StudyContext())
    costs = prices(run.networks, run.shape, run.data.train.images.device)
    with atomic_directory_update(folder) as temporary:
        differences = _write_networks(run, temporary, formats)
        write_text(temporary / CONFIG_FILE, settings)
        card = model_card(run, metrics, costs, differences, weights_license, findings, warnings)
        write_text(temporary / CARD_FILE, card)
        sizes = {file.name: file.stat().st_size for file in sorted(temporary.iterdir())}
    device = run.data.train.images.device.type
    checked = min(sum(BATCHES), len(run.data.validation))
    rows = [warning.as_row() for warning in warnings]
    return ExportResult(folder, sizes, differences, checked, metrics, costs, device, rows)


def _warnings(
    run: DistillationRun, student: Metrics, teachers: Mapping[str, Any], findings: StudyContext
) -> list[ConfigIssue]:
    """Returns all warnings about images, teachers and student."""
    classes = len(run.data.class_names)
    of_teachers = run.ensemble.warnings if run.ensemble is not None else ()
    of_metrics = (*student_warnings(student, teachers, classes), *teacher_warnings(teachers, classes))
    return [*findings.warnings, *of_metrics, *of_teachers, *run.data.warnings]


def _settings(run: DistillationRun) -> str:
    """Returns the settings file with a comment that states how to reproduce the student."""
    heading = (
        f"To reproduce this student: ensdistill distill {CONFIG_FILE}\n"
        f"Hashes: settings {run.config.hash}, data {run.data.identity}, ensemble {run.learnt_from}"
    )
    return to_yaml(run.config, heading)


# --- one file per format ----------------------------------------------------------------------------------------------


def _write_networks(run: DistillationRun, folder: Path, formats: Sequence[str]) -> dict[str, float]:
    """Writes and verifies the files; returns the largest difference of a logit for each."""
    student = DeployableClassifier(run.network)
    program: Any = _program(student, run) if {"pt2", "onnx"} & set(formats) else None
    differences = {}
    if "safetensors" in formats:
        save_weights(folder / STUDENT_FILE, student.network, run.metadata)
        differences[STUDENT_FILE] = _checked(
            student, open_safetensors(folder / STUDENT_FILE, True), run.data.validation
        )
    if "pt2" in formats:
        with quietly():
            torch.export.save(program, folder / PT2_FILE, extra_files=run.metadata)
        differences[PT2_FILE] = _checked(student, open_pt2(folder / PT2_FILE), run.data.validation)
    if "onnx" in formats:
        _write_onnx(program, folder / ONNX_FILE, run.metadata)
        differences[ONNX_FILE] = _checked(student, open_onnx(folder / ONNX_FILE), run.data.validation)
    return differences


def _program(student: DeployableClassifier, run: DistillationRun) -> torch.export.ExportedProgram:
    """Returns the student as one graph for batches of any size."""
    images = torch.zeros(2, *run.shape, dtype=torch.uint8)  # two, because torch treats a size of one as constant
    try:
        with quietly():
            return torch.export.export(student, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    except Exception as error:  # torch raises a dozen different errors for networks that it cannot trace
        raise _cannot("pt2 and onnx", error) from error


def _write_onnx(program: Any, file: Path, metadata: Mapping[str, str]) -> None:
    """Writes an ONNX file with metadata."""
    try:
        with quietly():
            written: Any = torch.onnx.export(
                program,
                input_names=["images"],
                output_names=["logits", "probabilities"],
                dynamic_shapes={
                    "images": {0: torch.export.Dim("batch")}
                },  # only names the dimension; it is already dynamic
                dynamo=True,
                verbose=False,
            )
            written.model.metadata_props.update(metadata)
            written.save(file, external_data=False)
    except Exception as error:  # torch and ONNX raise a dozen different errors for unsupported networks
        raise _cannot("onnx", error) from error


def _cannot(formats: str, error: Exception) -> ExportError:
    """Returns the error of a network that a format does not support."""
    reason = " ".join(str(error).split())[:200]
    return ExportError(f"this network cannot be written as {formats} ({reason}); select other formats with --formats")


def _checked(student: DeployableClassifier, file: Classifier, images: Split) -> float:
    """Returns the largest difference of a logit on real images; raises ExportError if it is above LIMIT."""
    worst, start = 0.0, 0
    for size in BATCHES:
        batch = images.images[start : start + size].cpu()
        if len(batch):
            with torch.no_grad():
                expected = student(batch)[0].numpy()
            worst = float(np.maximum(worst, np.abs(file.answer(batch.numpy())[0] - expected).max()))  # NaN stays NaN
        start += size
    if not worst <= LIMIT:
        raise ExportError(
            f"{file.path.name}: differs from the student by {worst:.3g} in a logit, more than {LIMIT:g}; nothing was "
            "written. Select other formats with --formats"
        )
    return worst
