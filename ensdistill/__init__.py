"""Ensemble distillation: one student network that behaves like a whole ensemble.

config = load_config("latentbe")
data = load_data(config.data)
ensemble = get_ensemble(config, data, "studies/teachers")
for epoch in distill(config, ensemble, data):
    print(epoch.number, epoch.val)
"""

from ensdistill.config import Config, load_config
from ensdistill.data import Data, load_data
from ensdistill.distill import Epoch, distill
from ensdistill.errors import ConfigError, DataError, DivergedError, EnsdistillError
from ensdistill.members import Ensemble
from ensdistill.prediction import evaluate
from ensdistill.teachers import get_ensemble
from ensdistill.version import __version__

__all__ = [
    "Config",
    "ConfigError",
    "Data",
    "DataError",
    "DivergedError",
    "EnsdistillError",
    "Ensemble",
    "Epoch",
    "__version__",
    "distill",
    "evaluate",
    "get_ensemble",
    "load_config",
    "load_data",
]
