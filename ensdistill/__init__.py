"""Ensemble distillation: one student network that behaves like a whole ensemble.

config = load_config("latentbe")
data = load_data(config.data)
ensemble = get_ensemble(config, data, "studies/teachers")
for epoch in distill(config, ensemble, data):
    print(epoch.number, epoch.val)
"""

from ensdistill.classifier import Classifier, open_classifier
from ensdistill.config import Config, load_config
from ensdistill.data import Data, load_data
from ensdistill.distill import Distiller, EpochResult, distill
from ensdistill.errors import ConfigError, DataError, DivergedError, EnsdistillError, ExportError
from ensdistill.export import Exported, export
from ensdistill.members import Ensemble
from ensdistill.prediction import evaluate
from ensdistill.shipped import Run, open_run
from ensdistill.teachers import get_ensemble
from ensdistill.version import __version__

__all__ = [
    "Classifier",
    "Config",
    "ConfigError",
    "Data",
    "DataError",
    "Distiller",
    "DivergedError",
    "EnsdistillError",
    "Ensemble",
    "EpochResult",
    "ExportError",
    "Exported",
    "Run",
    "__version__",
    "distill",
    "evaluate",
    "export",
    "get_ensemble",
    "load_config",
    "load_data",
    "open_classifier",
    "open_run",
]
