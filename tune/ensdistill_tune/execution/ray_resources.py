"""Resources of the machines of a Ray cluster, and the number of trials that can run on them in parallel."""

from collections.abc import Mapping

import ray

from ensdistill.errors import ConfigError
from ensdistill_tune.study.study_config import StudyConfig


def parallel_slots(study: StudyConfig) -> int:
    """Returns the number of trials that the cluster can run in parallel."""
    wanted = {"CPU": study.resources.cpus, "GPU": study.resources.gpus}
    return sum(
        min(int(node.get(what, 0) / amount + 1e-9) for what, amount in wanted.items() if amount) for node in _nodes()
    )


def check_resources(study: StudyConfig) -> None:
    """Raises ConfigError if no machine of the cluster has enough resources for a trial."""
    wanted = {"CPU": study.resources.cpus, "GPU": study.resources.gpus}
    nodes = _nodes()
    if any(all(node.get(what, 0) >= amount for what, amount in wanted.items()) for node in nodes):
        return
    here = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
    raise ConfigError(
        f"resources: {study.resources.cpus:g} CPU and {study.resources.gpus:g} GPU per trial exceed the resources of "
        f"every machine ({here}); lower resources.cpus or resources.gpus"
    )


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
