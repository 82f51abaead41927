"""Decisions made once at launch: which settings of an earlier study are evaluated first, and which precision to use."""

from collections.abc import Sequence
from pathlib import Path

from ensdistill.errors import DataError
from ensdistill.methods.recipe import fast_in_bfloat16
from ensdistill.runtime.lazy import torch
from ensdistill.settings.validation import validate
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import TrialRecord, of_kind
from ensdistill_tune.search.search_space import Sampled
from ensdistill_tune.study.study_config import StudyConfig


def apply_warm_start(study: StudyConfig, studies: Path) -> StudyConfig:
    """Adds the best settings of an earlier study to `points_to_evaluate`, the settings that the search evaluates first.

    Args:
        study: The settings; without `warm_start` they are returned unchanged.
        studies: Folder that contains all studies.

    Raises:
        DataError: The earlier study does not exist, or none of its best trials has a value in this search space.
    """
    if study.warm_start is None:
        return study
    best = _best_settings(StudyDirectory(studies / study.warm_start.study))
    fitting = [
        {name: value for name, value in settings.items() if (a := study.search.get(name)) and a.contains(value)}
        for settings in best[: study.warm_start.top_k]
    ]
    if not any(fitting):
        raise DataError(
            f"warm_start.study: must have trials with settings in this search space, got {study.warm_start.study}; "
            "name another study, or remove warm_start"
        )
    return study.model_copy(update={"points_to_evaluate": [*study.points_to_evaluate, *filter(None, fitting)]})


def _best_settings(folder: StudyDirectory) -> Sequence[Sampled]:
    """Returns the searched settings of a study, best first, without duplicates."""
    study = validate(StudyConfig, folder.read_summary()["study"])
    searched = of_kind(folder.read_trials(), "search")
    trials: Sequence[TrialRecord] = study.rank(searched)
    return list({trial.config_hash: trial.settings_at_last for trial in reversed(trials)}.values())[::-1]


def resolve_precision(study: StudyConfig) -> StudyConfig:
    """Returns the study with `precision: auto` replaced by a single precision, which study.json then records.

    Args:
        study: The settings; they are returned unchanged if their precision is not `auto`.
    """
    training = study.config.get("training", {})
    if training.get("precision") != "auto":
        return study
    # Trials may run on the GPUs of other machines in a cluster; every GPU that torch supports is fast in bfloat16.
    elsewhere = bool(study.resources.gpus) and not torch.cuda.is_available()
    fast = elsewhere or fast_in_bfloat16(torch.device("cuda" if study.resources.gpus else "cpu"))
    config = {**study.config, "training": {**training, "precision": "bfloat16" if fast else "float32"}}
    return study.model_copy(update={"config": config})
