"""Checks custom pieces on the machines of a cluster: imports each piece before the first training run."""

from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ensdistill.config import Config
from ensdistill.errors import ConfigError, ConfigIssue, SettingError
from ensdistill.settings.fields import families_of, own_pieces
from ensdistill.settings.pieces import Piece, group_name, is_unreachable, kind_of, piece_code
from ensdistill_tune.study.study_config import StudyConfig

Codes = dict[tuple[str, str], str]  # keyed by (entry-point group, kind): code identifier, or why the code is missing


def check_pieces(study: StudyConfig) -> None:
    """Checks that all machines of the cluster have the same version of each custom piece that trials use.

    Args:
        study: The settings.

    Raises:
        ConfigError: A machine lacks a piece or has a different version of it.
    """
    here, names = _here(study)
    if not here:
        return
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    tasks = [(node["NodeManagerHostname"], _on_node(node["NodeID"], list(here))) for node in nodes]
    issues = [
        ConfigIssue((names[piece], "kind"), f"on machine {host}: {_difference(piece[1], code, here[piece])}")
        for host, task in tasks
        for piece, code in ray.get(task).items()
        if code != here[piece]
    ]
    if issues:
        raise ConfigError(issues)


def _here(study: StudyConfig) -> tuple[Codes, dict[tuple[str, str], str]]:
    """Returns the code identifier and the settings section of each piece that trials use, as two dictionaries."""
    carried = {type(piece) for piece in _instances(study.config)}
    codes: Codes = {}
    names = {}
    for config in study.representative_configs:
        for path, piece in own_pieces(Config, config).items():
            if is_unreachable(piece) and piece in carried:
                continue  # no check: Ray pickles the class together with the instance
            key = (group_name(piece), kind_of(piece))
            codes[key], names[key] = piece_code(piece), ".".join(map(str, path))
    return codes, names


def _instances(tree: Any) -> Iterator[Piece]:
    """Yields the pieces that are given as instances in the settings."""
    if isinstance(tree, Piece):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _instances(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _instances(value)


def _on_node(node: str, wanted: list[tuple[str, str]]) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task: Any = ray.remote(_codes)
    return task.options(num_cpus=0, scheduling_strategy=there).remote(wanted)


def _codes(wanted: list[tuple[str, str]]) -> Codes:
    """Ray task: imports all pieces on the machine where the task runs, and returns their code identifiers."""
    families = {family.group: family for family in families_of(Config)}
    found = {}
    for group, kind in wanted:
        try:
            found[group, kind] = piece_code(families[group].find(kind))
        except SettingError as error:
            found[group, kind] = f"error: {error.issue.sentence}"
    return found


def _difference(kind: str, there: str, here: str) -> str:
    if there.startswith("error: "):
        return there.removeprefix("error: ")
    return f"{kind} is {there}, but {here} on the machine that runs the study; install the same version on both"
