"""Loads the data, loads or trains the teachers, and checks that both are the same as in earlier sessions."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from ensdistill.config import content_hash
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError, DataError
from ensdistill.evaluation.plausibility import teacher_warnings
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.pipeline import load_inputs, teacher_metrics
from ensdistill.runtime.progress_bar import show_warnings
from ensdistill.settings.paths import without_files
from ensdistill_tune.execution.executor import Executor
from ensdistill_tune.execution.memory import free_memory
from ensdistill_tune.study.provenance import git_commit, versions
from ensdistill_tune.study.study_config import StudyConfig, study_files
from ensdistill_tune.study.study_location import StudyLocation
from ensdistill_tune.study.validation import class_issues, study_warnings


@dataclass(frozen=True)
class StudyInputs:
    """Data and teachers of a study.

    Attributes:
        data: Training, validation and unlabeled images.
        ensemble: The teachers.
        metrics: Validation metrics of the teachers, as `Evaluator.teachers` returns them.
        header: Constant part of study.json.
    """

    data: DataSplits
    ensemble: TeacherEnsemble
    metrics: dict[str, Any]
    header: dict[str, Any]


def prepare(study: StudyConfig, place: StudyLocation, executor: Executor, header: dict[str, Any]) -> StudyInputs:
    """Loads the data, and trains or loads the teachers.

    Args:
        study: The settings.
        place: Location of the study.
        executor: Executor that trains missing teachers.
        header: Previous content of study.json, including the hashes from an earlier session.

    Raises:
        ConfigError: The settings cannot be used with these data.
        DataError: The data or the teachers differ from those of an earlier session.
    """
    plugins = {name: code for one in study.representative_configs for name, code in one.plugins.items()}
    plugins = dict(sorted(plugins.items()))
    _check_same(place, header, "plugins", plugins, "custom pieces")  # checked before any teacher is trained
    config, unusual = study.base_config, study_warnings(study)
    show_warnings(unusual)
    check = partial(_check_classes, study)
    train = executor.teacher_trainer(study.resources, place.device)
    data, ensemble = load_inputs(config, str(place.studies), place.device, study.distinct_architectures, train, check)
    metrics = teacher_metrics(ensemble, data, config)
    ensemble.cpu()  # the GPU is reserved for trials until the test evaluation
    if data.train.images.device.type != "cpu":  # on a CPU, collecting garbage here would only delay the first trial
        free_memory()
    _check_same(place, header, "data_hash", data.identity, "images")
    _check_same(place, header, "ensemble_hash", ensemble.identity, "teachers")
    found = teacher_warnings(metrics, len(data.class_names))
    show_warnings(found)
    known = (*unusual, *found, *ensemble.warnings, *data.warnings)
    about = {
        "study_hash": content_hash(without_files(header["study"], study_files(study.config))),
        "data_hash": data.identity,
        "ensemble_hash": ensemble.identity,
        "device": "cuda" if study.resources.gpus else "cpu",
        "classes": len(data.class_names),
        "teachers": metrics,
        "warnings": [warning.as_row() for warning in known],
        "versions": versions(),
        "git_commit": git_commit(),
    }
    about |= {"plugins": plugins} if plugins else {}
    return StudyInputs(data, ensemble, metrics, header | about)


def _check_classes(study: StudyConfig, data: DataSplits) -> None:
    if issues := class_issues(study, len(data.class_names)):
        raise ConfigError(issues)


def _check_same(place: StudyLocation, header: dict[str, Any], name: str, mine: object, what: str) -> None:
    if header.get(name, mine) != mine:
        raise DataError(
            f"{place.home}: the {what} must be the same as at the start of this study ({header[name]}), got {mine}; "
            f"otherwise trials would not be comparable. Restore the {what} or launch a new study."
        )
