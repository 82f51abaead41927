"""Ensemble distillation: trains one student network that approximates the predictions of an ensemble.

config = load_config("latentbe")
data = load_data(config.data)
ensemble = get_ensemble(config, data, "studies/teachers")
for epoch in distill(config, ensemble, data):
    print(epoch.number, epoch.val)
"""

import importlib
from typing import TYPE_CHECKING

from ensdistill.version import __version__

if TYPE_CHECKING:
    from ensdistill.config import Config, load_config
    from ensdistill.data import Data, DataSource, DataSplits, ImageAugmentation, StandardAugmentation, load_data
    from ensdistill.errors import ConfigError, DataError, DivergedError, EnsdistillError, ExportError
    from ensdistill.evaluation.predict import evaluate
    from ensdistill.export.classifier import Classifier, open_classifier
    from ensdistill.export.exporter import ExportResult, export_student
    from ensdistill.export.student_file import DistillationRun, load_run
    from ensdistill.methods.averaging import AveragingSettings
    from ensdistill.methods.losses import DistillationLoss, WeightedDistillationLoss
    from ensdistill.methods.members import TeacherEnsemble
    from ensdistill.methods.metrics import Metric
    from ensdistill.methods.optimizers import OptimizerPiece
    from ensdistill.methods.perturbations import InputPerturbation
    from ensdistill.methods.students import StudentPiece
    from ensdistill.models import NetworkPiece
    from ensdistill.pipeline import distill_to_directory
    from ensdistill.settings.base import setting
    from ensdistill.training.loop import Distiller, EpochResult, distill
    from ensdistill.training.teacher_logits import TeacherLogitCache
    from ensdistill.training.teachers import get_ensemble

__all__ = [
    "AveragingSettings",
    "Classifier",
    "Config",
    "ConfigError",
    "Data",
    "DataError",
    "DataSource",
    "DataSplits",
    "DistillationLoss",
    "DistillationRun",
    "Distiller",
    "DivergedError",
    "EnsdistillError",
    "EpochResult",
    "ExportError",
    "ExportResult",
    "ImageAugmentation",
    "InputPerturbation",
    "Metric",
    "NetworkPiece",
    "OptimizerPiece",
    "StandardAugmentation",
    "StudentPiece",
    "TeacherEnsemble",
    "TeacherLogitCache",
    "WeightedDistillationLoss",
    "__version__",
    "distill",
    "distill_to_directory",
    "evaluate",
    "export_student",
    "get_ensemble",
    "load_config",
    "load_data",
    "load_run",
    "open_classifier",
    "setting",
]

_MODULES = {
    "AveragingSettings": "ensdistill.methods.averaging",
    "Classifier": "ensdistill.export.classifier",
    "Config": "ensdistill.config",
    "ConfigError": "ensdistill.errors",
    "Data": "ensdistill.data",
    "DataError": "ensdistill.errors",
    "DataSource": "ensdistill.data",
    "DataSplits": "ensdistill.data",
    "DistillationLoss": "ensdistill.methods.losses",
    "DistillationRun": "ensdistill.export.student_file",
    "Distiller": "ensdistill.training.loop",
    "DivergedError": "ensdistill.errors",
    "EnsdistillError": "ensdistill.errors",
    "EpochResult": "ensdistill.training.loop",
    "ExportError": "ensdistill.errors",
    "ExportResult": "ensdistill.export.exporter",
    "ImageAugmentation": "ensdistill.data",
    "InputPerturbation": "ensdistill.methods.perturbations",
    "Metric": "ensdistill.methods.metrics",
    "NetworkPiece": "ensdistill.models",
    "OptimizerPiece": "ensdistill.methods.optimizers",
    "StandardAugmentation": "ensdistill.data",
    "StudentPiece": "ensdistill.methods.students",
    "TeacherEnsemble": "ensdistill.methods.members",
    "TeacherLogitCache": "ensdistill.training.teacher_logits",
    "WeightedDistillationLoss": "ensdistill.methods.losses",
    "distill": "ensdistill.training.loop",
    "distill_to_directory": "ensdistill.pipeline",
    "evaluate": "ensdistill.evaluation.predict",
    "export_student": "ensdistill.export.exporter",
    "get_ensemble": "ensdistill.training.teachers",
    "load_config": "ensdistill.config",
    "load_data": "ensdistill.data",
    "load_run": "ensdistill.export.student_file",
    "open_classifier": "ensdistill.export.classifier",
    "setting": "ensdistill.settings.base",
}


def __getattr__(name: str) -> object:
    """Imports a public name on first use, so that commands that do not use torch start quickly (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
