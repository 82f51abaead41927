"""Hyperparameter studies of ensemble distillation with Ray Tune, Optuna and MLflow.

import ensdistill_tune as edt

study = edt.StudyConfig.from_yaml("search_spaces/digits.yaml", overrides={"budget.trials": 8})
results = edt.launch(study, name="first", executor="inline")
print(results.verdict, results.trials_dataframe())
"""

import importlib
from typing import TYPE_CHECKING

from ensdistill.version import __version__

if TYPE_CHECKING:
    from ensdistill.errors import ConfigError, ConfigIssue, DataError, EnsdistillError
    from ensdistill_tune.analysis.results import StudyResults
    from ensdistill_tune.analysis.verdict import Verdict
    from ensdistill_tune.api import export, launch, load_results, resume
    from ensdistill_tune.callbacks import Callback, CallbackWarning
    from ensdistill_tune.comparison.comparing import compare
    from ensdistill_tune.comparison.result import ComparisonResult
    from ensdistill_tune.records.trial_record import TrialRecord
    from ensdistill_tune.search.hyperparameter import Hyperparameter
    from ensdistill_tune.search.shorthand import choice, grid, integer, log_uniform, uniform
    from ensdistill_tune.steering import enqueue, stop
    from ensdistill_tune.study.study_config import StudyConfig
    from ensdistill_tune.study.study_state import StudyState

_MODULES = {
    "Callback": "ensdistill_tune.callbacks",
    "CallbackWarning": "ensdistill_tune.callbacks",
    "ComparisonResult": "ensdistill_tune.comparison.result",
    "ConfigError": "ensdistill.errors",
    "ConfigIssue": "ensdistill.errors",
    "DataError": "ensdistill.errors",
    "EnsdistillError": "ensdistill.errors",
    "Hyperparameter": "ensdistill_tune.search.hyperparameter",
    "StudyConfig": "ensdistill_tune.study.study_config",
    "StudyResults": "ensdistill_tune.analysis.results",
    "StudyState": "ensdistill_tune.study.study_state",
    "TrialRecord": "ensdistill_tune.records.trial_record",
    "Verdict": "ensdistill_tune.analysis.verdict",
    "choice": "ensdistill_tune.search.shorthand",
    "compare": "ensdistill_tune.comparison.comparing",
    "enqueue": "ensdistill_tune.steering",
    "export": "ensdistill_tune.api",
    "grid": "ensdistill_tune.search.shorthand",
    "integer": "ensdistill_tune.search.shorthand",
    "launch": "ensdistill_tune.api",
    "load_results": "ensdistill_tune.api",
    "log_uniform": "ensdistill_tune.search.shorthand",
    "resume": "ensdistill_tune.api",
    "stop": "ensdistill_tune.steering",
    "uniform": "ensdistill_tune.search.shorthand",
}

__all__ = [
    "Callback",
    "CallbackWarning",
    "ComparisonResult",
    "ConfigError",
    "ConfigIssue",
    "DataError",
    "EnsdistillError",
    "Hyperparameter",
    "StudyConfig",
    "StudyResults",
    "StudyState",
    "TrialRecord",
    "Verdict",
    "__version__",
    "choice",
    "compare",
    "enqueue",
    "export",
    "grid",
    "integer",
    "launch",
    "load_results",
    "log_uniform",
    "resume",
    "stop",
    "uniform",
]


def __getattr__(name: str) -> object:
    """Imports a public name on first use (PEP 562), so that reading settings requires neither torch nor Ray."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
