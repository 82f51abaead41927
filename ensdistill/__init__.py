"""Ensemble distillation: one student network that behaves like a whole ensemble.

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
    from ensdistill.data import Data, DataSplits, load_data
    from ensdistill.errors import ConfigError, DataError, DivergedError, EnsdistillError, ExportError
    from ensdistill.evaluation.predict import evaluate
    from ensdistill.export.classifier import Classifier, open_classifier
    from ensdistill.export.exporter import ExportResult, export_student
    from ensdistill.export.student_file import DistillationRun, load_run
    from ensdistill.methods.members import TeacherEnsemble
    from ensdistill.pipeline import distill_to_directory
    from ensdistill.training.loop import Distiller, EpochResult, distill
    from ensdistill.training.teacher_logits import TeacherLogitCache
    from ensdistill.training.teachers import get_ensemble

__all__ = [
    "Classifier",
    "Config",
    "ConfigError",
    "Data",
    "DataError",
    "DataSplits",
    "DistillationRun",
    "Distiller",
    "DivergedError",
    "EnsdistillError",
    "EpochResult",
    "ExportError",
    "ExportResult",
    "TeacherEnsemble",
    "TeacherLogitCache",
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
]

_MODULES = {
    "Classifier": "ensdistill.export.classifier",
    "Config": "ensdistill.config",
    "ConfigError": "ensdistill.errors",
    "Data": "ensdistill.data",
    "DataSplits": "ensdistill.data",
    "DataError": "ensdistill.errors",
    "Distiller": "ensdistill.training.loop",
    "DivergedError": "ensdistill.errors",
    "EnsdistillError": "ensdistill.errors",
    "TeacherEnsemble": "ensdistill.methods.members",
    "TeacherLogitCache": "ensdistill.training.teacher_logits",
    "EpochResult": "ensdistill.training.loop",
    "ExportError": "ensdistill.errors",
    "ExportResult": "ensdistill.export.exporter",
    "DistillationRun": "ensdistill.export.student_file",
    "distill": "ensdistill.training.loop",
    "distill_to_directory": "ensdistill.pipeline",
    "evaluate": "ensdistill.evaluation.predict",
    "export_student": "ensdistill.export.exporter",
    "get_ensemble": "ensdistill.training.teachers",
    "load_config": "ensdistill.config",
    "load_data": "ensdistill.data",
    "open_classifier": "ensdistill.export.classifier",
    "load_run": "ensdistill.export.student_file",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that no command waits for torch without need (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
