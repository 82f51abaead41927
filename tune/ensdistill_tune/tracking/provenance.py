"""Provenance of runs in MLflow's format: data set, source and version."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ensdistill.runtime.secrets import without_secrets
from ensdistill_tune.study.study_config import StudyConfig

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

SOURCE = {"mlflow.source.name": "ensdistill-tune", "mlflow.source.type": "LOCAL"}
COMMIT = "mlflow.source.git.commit"
# This tag selects the kind of pages that MLflow shows. MLflow 3.17 ignores the tag; in this version, the link or the
# browser's last selection determines the kind.
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
DIGEST = 36  # maximum length of a digest in MLflow, in characters


def source_tags(facts: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags that state the source and its version.

    Args:
        facts: Tags that all runs of the study share, including `git_commit` if it is known.
    """
    return SOURCE | ({COMMIT: facts["git_commit"]} if facts.get("git_commit") else {})


def dataset_input(study: StudyConfig, digest: str) -> "DatasetInput":
    """Returns the data set of a study as the input that MLflow records for its runs.

    Args:
        study: The settings.
        digest: Hash of the images and labels.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    settings = study.base_config.data.model_dump(mode="json")
    path = settings.get("path")
    source: dict[str, Any] = {"uri": path} if path else {"tags": SOURCE}
    dataset = Dataset(
        name=str(settings.get("kind", "data")),
        digest=digest[:DIGEST],
        source_type="local" if path else "code",
        source=without_secrets(json.dumps(source)),
        profile=without_secrets(json.dumps(settings)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
