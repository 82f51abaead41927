"""Takes a student away: files that run elsewhere, each checked against the student itself before it gets its name."""

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

LIMIT = 1e-4  # of the difference between a logit of the student and of its file
BATCHES = (1, 7, 128)  # sizes of the batches on which they are compared
CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class ExportResult:
    """What lies in the folder of an export."""

    folder: Path
    sizes: dict[str, int]  # bytes of each file
    differences: dict[str, float]  # of each file with a network: largest difference of a logit from the student's
    checked: int  # validation images on which they were compared
    metrics: dict[str, Metrics]  # on validation images, by who
    prices: dict[str, InferenceCost]  # of `student` and, if it is at hand, `ensemble`
    device: str  # on which they were timed
    warnings: list[dict[str, Any]]  # what seems wrong with images, teachers and student, as `ConfigIssue.as_row` has it

    def in_words(self) -> str:
        """How it was measured."""
        return (
            f"logits compared on {self.checked} validation images, in batches of {', '.join(map(str, BATCHES))}\n"
            "costs are those of networks whose BatchNorms are folded into their convolutions\n"
            f"times are medians in PyTorch on one thread ({self.device}), networks in turns"
        )


def export_student(
    run: DistillationRun,
    out: str | Path,
    weights_license: str = "",
    findings: StudyContext | None = None,
    formats: Sequence[str] = FORMATS,
) -> ExportResult:
    """Writes settings, student, model card; all files together, or none if one of them fails its check.

    weights_license: of the weights, as an SPDX identifier. findings: what a study knows besides. formats: which of
    FORMATS.
    Raises ConfigError if a library is missing, DataError if the folder cannot be written or holds another student,
    ExportError if a file cannot be made or differs from the student by more than LIMIT.
    """
    settings = _settings(run)
    folder = claim_folder(Path(out), run.metadata, lambda file: file.read_text(encoding="utf-8") == settings)
    for library in ("onnxscript", "onnxruntime") if "onnx" in formats else ():
        need(library)  # told before anything is measured
    with deterministic(run.config.training.threads):
        examiner = Evaluator(run.ensemble, run.data, run.data.validation, run.config.metrics)
        student, teachers = examiner.student(run.network), examiner.teachers()
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
    told = [warning.as_row() for warning in warnings]
    return ExportResult(folder, sizes, differences, checked, metrics, costs, device, told)


def _warnings(
    run: DistillationRun, student: Metrics, teachers: Mapping[str, Any], findings: StudyContext
) -> list[ConfigIssue]:
    classes = len(run.data.class_names)
    of_teachers = run.ensemble.warnings if run.ensemble is not None else ()
    of_metrics = (*student_warnings(student, teachers, classes), *teacher_warnings(teachers, classes))
    return [*findings.warnings, *of_metrics, *of_teachers, *run.data.warnings]


def _settings(run: DistillationRun) -> str:
    heading = (
        f"Makes this student again: ensdistill distill {CONFIG_FILE}\n"
        f"Hashes: settings {run.config.hash}, data {run.data.identity}, ensemble {run.learnt_from}"
    )
    return to_yaml(run.config, heading)


# --- one file a format ------------------------------------------------------------------------------------------------


def _write_networks(run: DistillationRun, folder: Path, formats: Sequence[str]) -> dict[str, float]:
    """Writes and checks the files; the largest difference of a logit for each."""
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
    """The student as one graph for batches of any size."""
    images = torch.zeros(2, *run.shape, dtype=torch.uint8)  # two: torch would take one for a constant
    try:
        with quietly():
            return torch.export.export(student, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    except Exception as error:  # torch names a dozen different errors for what it cannot trace
        raise _cannot("pt2 and onnx", error) from error


def _write_onnx(program: Any, file: Path, metadata: Mapping[str, str]) -> None:
    try:
        with quietly():
            written: Any = torch.onnx.export(
                program,
                input_names=["images"],
                output_names=["logits", "probabilities"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},  # for the name; free it is already
                dynamo=True,
                verbose=False,
            )
            written.model.metadata_props.update(metadata)
            written.save(file, external_data=False)
    except Exception as error:  # torch and ONNX name a dozen different errors for what they cannot write
        raise _cannot("onnx", error) from error


def _cannot(formats: str, error: Exception) -> ExportError:
    reason = " ".join(str(error).split())[:200]
    return ExportError(f"this network cannot be written as {formats} ({reason}); leave that out with --formats")


def _checked(student: DeployableClassifier, file: Classifier, images: Split) -> float:
    """The largest difference of a logit on real images. Raises ExportError if it is above LIMIT."""
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
            "written, leave this format out with --formats"
        )
    return worst
