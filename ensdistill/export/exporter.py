"""Exports a student to deployable formats; each file is verified against the student before it is published."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensdistill.config import to_yaml
from ensdistill.errors import ConfigIssue
from ensdistill.evaluation.evaluator import Evaluator
from ensdistill.evaluation.inference_cost import InferenceCost
from ensdistill.evaluation.latency import WITH_RESIZE, prices, resizing_price
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.evaluation.plausibility import student_warnings, teacher_warnings
from ensdistill.evaluation.tables import teacher_rows
from ensdistill.export.format_names import FORMATS
from ensdistill.export.model_card import StudyContext, model_card
from ensdistill.export.network_files import BATCHES, PHOTOS, write_networks
from ensdistill.export.student_file import CONFIG_FILE, DeployableClassifier, DistillationRun, claim_folder, resize_of
from ensdistill.models.fusion import inference_form
from ensdistill.runtime.files import atomic_directory_update, write_text
from ensdistill.runtime.optional import need
from ensdistill.runtime.randomness import deterministic

CARD_FILE, LABELS_FILE = "MODEL_CARD.md", "labels.json"


@dataclass(frozen=True)
class ExportResult:
    """Result of an export.

    Attributes:
        folder: Folder that contains the exported files.
        sizes: Size of each file in bytes.
        differences: Largest difference from the student's logits, for each file that contains a network.
        resized: Largest difference from the student's probabilities on images that the exported networks must resize.
        checked: Number of validation images on which the logits were compared.
        metrics: Metrics on validation images, keyed by network.
        prices: Inference cost of `student`, `WITH_RESIZE` and, if available, `ensemble`.
        device: Device on which times were measured.
        warnings: Warnings about images, teachers and student, as rows from `ConfigIssue.as_row`.
    """

    folder: Path
    sizes: dict[str, int]
    differences: dict[str, float]
    resized: float
    checked: int
    metrics: dict[str, Metrics]
    prices: dict[str, InferenceCost]
    device: str
    warnings: list[dict[str, Any]]

    def in_words(self) -> str:
        """Returns the measurement conditions as text."""
        sizes = " and ".join(f"{width}x{height}" for height, width in PHOTOS)
        return (
            f"logits: compared on {self.checked} validation images, in batches of {', '.join(map(str, BATCHES))}\n"
            f"resize: probabilities for images of {sizes} pixels differ by at most {self.resized:.1e}\n"
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
    """Writes the settings, the student and the model card; if verification of any file fails, no file is written.

    Args:
        run: The student, its settings and its data.
        out: Folder to which the student is exported.
        weights_license: License of the weights, as an SPDX identifier; empty if not stated.
        findings: Information from a study, for the model card.
        formats: Names from FORMATS.

    Raises:
        ConfigError: A required library is missing.
        DataError: The folder cannot be written or contains another student.
        ExportError: A file cannot be written, or does not reproduce the student's outputs.
    """
    settings = _settings(run)
    folder = claim_folder(Path(out), run.metadata, lambda file: file.read_text(encoding="utf-8") == settings)
    for library in ("onnxscript", "onnxruntime") if "onnx" in formats else ():
        need(library)  # imported before any measurement, to fail early
    with deterministic(run.config.training.threads):
        evaluator = Evaluator(run.ensemble, run.data, run.data.validation, run.config.metrics)
        student, teachers = evaluator.student(run.network), evaluator.teachers()
    metrics = {"student": student} | teacher_rows(teachers)
    warnings = _warnings(run, student, teachers, findings or StudyContext())
    costs = _costs(run)
    with atomic_directory_update(folder) as temporary:
        differences, resized = write_networks(run, temporary, formats)
        write_text(temporary / CONFIG_FILE, settings)
        write_text(temporary / LABELS_FILE, json.dumps(run.data.class_names, ensure_ascii=False, indent=0) + "\n")
        card = model_card(run, metrics, costs, differences, resized, weights_license, findings, warnings)
        write_text(temporary / CARD_FILE, card)
        sizes = {file.name: file.stat().st_size for file in sorted(temporary.iterdir())}
    device = run.data.train.images.device.type
    checked = min(sum(BATCHES), len(run.data.validation))
    rows = [warning.as_row() for warning in warnings]
    return ExportResult(folder, sizes, differences, resized, checked, metrics, costs, device, rows)


def _costs(run: DistillationRun) -> dict[str, InferenceCost]:
    """Returns the inference cost of the student, of the student with preprocessing, and of the ensemble."""
    device = run.data.train.images.device
    costs = prices(run.networks, run.shape, device)
    fused = DeployableClassifier(inference_form(run.network), run.shape, resize_of(run.config))
    resizing = resizing_price(costs["student"], fused, run.shape[0], device)
    return {"student": costs["student"], WITH_RESIZE: resizing} | costs


def _warnings(
    run: DistillationRun, student: Metrics, teachers: Mapping[str, Any], findings: StudyContext
) -> list[ConfigIssue]:
    """Returns all warnings about images, teachers and student."""
    classes = len(run.data.class_names)
    of_teachers = run.ensemble.warnings if run.ensemble is not None else ()
    of_metrics = (*student_warnings(student, teachers, classes), *teacher_warnings(teachers, classes))
    return [*findings.warnings, *of_metrics, *of_teachers, *run.data.warnings]


def _settings(run: DistillationRun) -> str:
    """Returns the text of the settings file, with a comment that states how to reproduce the student."""
    heading = (
        f"To reproduce this student: ensdistill distill {CONFIG_FILE}\n"
        f"Hashes: settings {run.config.hash}, data {run.data.identity}, ensemble {run.learnt_from}"
    )
    return to_yaml(run.config, heading)
