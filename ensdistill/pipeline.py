"""Tasks run by the commands: loading data and teachers, and distilling one student and writing it to a folder."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ensdistill.config import Config, load_config, to_yaml
from ensdistill.data import DataSplits, load_data
from ensdistill.errors import ConfigError, ConfigIssue, teacher_name
from ensdistill.evaluation.evaluator import Evaluator
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.evaluation.plausibility import student_warnings, teacher_warnings
from ensdistill.export.run_locator import default_folder
from ensdistill.export.student_file import CONFIG_FILE, claim_folder, student_metadata
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.runtime.devices import pick_device
from ensdistill.runtime.files import write_json, write_text
from ensdistill.runtime.progress_bar import progress, show_warnings
from ensdistill.runtime.randomness import deterministic
from ensdistill.runtime.weights import STUDENT_FILE, save_weights
from ensdistill.training.checkpoint import read_checkpoint
from ensdistill.training.loop import EpochResult, distill
from ensdistill.training.new_student import check_student
from ensdistill.training.teachers import Trainer, check_trained_teachers, get_ensemble, train_teachers
from ensdistill.version import __version__

CHECKPOINT = "checkpoint.pt"  # file name in the folder of a run


def load_inputs(
    config: Config,
    studies: str | Path,
    device: str,
    others: Sequence[Config] = (),
    train: Trainer = train_teachers,
    check: Callable[[DataSplits], None] | None = None,
) -> tuple[DataSplits, TeacherEnsemble]:
    """Returns the data, moved to the device, and the trained ensemble; shows a progress bar for teacher training.

    Args:
        config: Settings of the run.
        studies: Folder for all results; its subfolder `teachers` stores teachers, and `datasets` stores decoded images.
        device: `auto`, or the name of a torch device.
        others: Settings of other runs on the same data; the students of these runs are checked as well.
        train: Function that trains the missing teachers.
        check: Function that raises an error if the data are insufficient; called before any teacher is trained.

    Raises:
        ConfigError: A student or teacher of one of the configs cannot be trained on these data; raised before any
            teacher is trained.
        DataError: The data or the teachers cannot be read.
    """
    data = load_data(config.data, studies).to(pick_device(device))
    show_warnings((*config.warnings, *data.warnings))
    if check:
        check(data)
    for one in (config, *others):
        check_student(one, data)
    check_trained_teachers(config, data)
    count, done = config.teachers.count, dict[int, int]()
    with progress("teachers", count * config.teachers.training.epochs) as advance:

        def show(teacher: int, epochs: int) -> None:
            done[teacher] = epochs
            advance(sum(done.values()), f"{teacher_name(teacher)} of {count}")

        ensemble = get_ensemble(config, data, Path(studies) / "teachers", show, train)
    show_warnings(ensemble.warnings)
    return data, ensemble


def teacher_metrics(ensemble: TeacherEnsemble, data: DataSplits, config: Config) -> dict[str, Any]:
    """Returns validation metrics of the ensemble and of each teacher, and the calibrated NLL by ensemble size."""
    with deterministic(config.training.threads):
        return Evaluator(ensemble, data, data.validation, config.metrics).teachers()


def metric_warnings(data: DataSplits, student: Metrics, teachers: Mapping[str, Any]) -> tuple[ConfigIssue, ...]:
    """Prints and returns the warnings about the metrics of a student and its teachers.

    Args:
        data: The images.
        student: Validation metrics of the student.
        teachers: Metrics from `teacher_metrics`.
    """
    classes = len(data.class_names)
    found = (*student_warnings(student, teachers, classes), *teacher_warnings(teachers, classes))
    show_warnings(found)
    return found


@contextlib.contextmanager
def _removed_if_refused(folder: Path) -> Iterator[None]:
    """Removes the folder if the block raises an error after creating the folder, and the folder is empty."""
    existed = folder.exists()
    try:
        yield
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@dataclass(frozen=True)
class DistilledRun:
    """A distilled student and the folder that contains it.

    Attributes:
        folder: Folder that contains the student, its settings (`config.yaml`), the checkpoint and `result.json`.
        result: Content of `result.json`.
        epoch: Results of the last epoch.
        teachers: Validation metrics of the teachers.
    """

    folder: Path
    result: dict[str, Any]
    epoch: EpochResult
    teachers: Mapping[str, Any]


def distill_to_directory(
    config: Config,
    out: str | Path | None = None,
    *,
    studies: str | Path = "studies",
    device: str = "auto",
    resume: str | Path | None = None,
    on_interrupt: Callable[[Path], None] | None = None,
) -> DistilledRun:
    """Distills one student and writes it to a folder, together with its settings, checkpoint and metrics.

    Args:
        config: Settings of the run.
        out: Folder of the run; by default `<studies>/runs/<hash of the settings>`.
        studies: Folder for all results; its subfolder `teachers` stores the teachers.
        device: `auto`, or the name of a torch device.
        resume: Checkpoint to resume from; it must belong to the same run.
        on_interrupt: Called with the path of the checkpoint if training is interrupted after the first epoch.

    Returns:
        The folder and the metrics.

    Raises:
        ConfigError: The settings are invalid, or the run has already completed.
        DataError: The data, the teachers or the checkpoint cannot be read, or the folder contains another run.
        DivergedError: A loss became NaN or infinite.
    """

    def its_own(file: Path) -> bool:
        return load_config(file).hash == config.hash

    first = Path(out or default_folder(studies, config))
    with _removed_if_refused(first):
        claim_folder(first, {"settings": config.hash}, its_own)
        if resume:
            read_checkpoint(Path(resume))  # an invalid checkpoint is rejected before teachers are trained
        data, ensemble = load_inputs(config, studies, device)
    metadata = student_metadata(config, data, ensemble.identity)
    folder = claim_folder(Path(out or default_folder(studies, config, data.identity)), metadata, its_own)
    distiller = distill(config, ensemble, data, resume=resume)
    write_text(folder / CONFIG_FILE, to_yaml(config))
    epoch = None
    try:
        with progress("student", config.training.epochs) as advance:
            for epoch in distiller:
                if epoch.last:
                    save_weights(folder / STUDENT_FILE, distiller.student(), metadata)
                distiller.save_checkpoint(folder / CHECKPOINT)
                advance(epoch.number, f"validation NLL {epoch.val['nll']:.4f}")
    except KeyboardInterrupt:
        if on_interrupt and (folder / CHECKPOINT).exists():
            on_interrupt(folder / CHECKPOINT)
        raise
    if epoch is None:
        raise ConfigError(f"{resume}: this run has already completed; its student is stored next to the checkpoint")
    with deterministic(config.training.threads):
        evaluator = Evaluator(ensemble, data, data.validation, config.metrics)
        student, teachers = evaluator.student(distiller.student()), evaluator.teachers()
    suspicious = metric_warnings(data, student, teachers)
    result = {
        "config_hash": config.hash,
        "ensemble_hash": ensemble.identity,
        "data_hash": data.identity,
        "epochs": epoch.number,
        "selected_epoch": epoch.selected,
        "loss": epoch.loss,
        "val": student,
        "subnetworks": epoch.subnetworks,
        "teachers": teachers,
        "warnings": [warning.as_row() for warning in (*suspicious, *ensemble.warnings, *data.warnings)],
        "student": str(folder / STUDENT_FILE),
        "version": __version__,
        "torch": torch.__version__,
        "device": data.train.images.device.type,
    }
    write_json(folder / "result.json", result)
    return DistilledRun(folder, result, epoch, teachers)
