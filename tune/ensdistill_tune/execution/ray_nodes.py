"""Checks before and during a study that each machine of the cluster has the required versions and the study folder."""

import contextlib
import functools
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ensdistill.errors import MachineError
from ensdistill.runtime.boundary import cause_of
from ensdistill.runtime.files import write_text
from ensdistill_tune.execution import node_probe
from ensdistill_tune.execution.node_probe import NOT_INSTALLED, probe, versions

ANSWER_SECONDS = 120.0  # time limit for a machine to answer, including the start of a worker process there


@dataclass(frozen=True)
class StudyMachine:
    """Requirements that each machine of a study must meet.

    Attributes:
        folder: Folder of the study, an absolute path.
        token: Name of a file in this folder that exists while the study runs.
        node: Identifier of the machine that runs the study.
        versions: Versions on the machine that runs the study, which all machines must have.
    """

    folder: Path
    token: str
    node: str
    versions: Mapping[str, str] = field(default_factory=versions)

    def check_this_machine(self) -> None:
        """Checks a worker's machine once per process, because the machine may have joined the cluster after the launch.

        Raises:
            MachineError: The machine lacks the folder or has different versions.
        """
        if ray.get_runtime_context().get_node_id() == self.node:
            return
        if problems := _problems_here(str(self.folder), self.token, tuple(self.versions.items())):
            raise MachineError(f"on machine {socket.gethostname()}: {'; '.join(problems)}")


@contextlib.contextmanager
def study_machine(home: Path) -> Iterator[StudyMachine]:
    """Provides the requirements of a study. The token file exists only inside the block.

    Args:
        home: Folder of the study.
    """
    home = home.resolve()
    for left in home.glob(".token-*"):  # left by a process that was killed
        left.unlink(missing_ok=True)
    token = f".token-{uuid.uuid4().hex}"
    write_text(home / token, "")
    try:
        yield StudyMachine(home, token, ray.get_runtime_context().get_node_id())
    finally:
        (home / token).unlink(missing_ok=True)


def check_nodes(wanted: StudyMachine) -> None:
    """Checks all machines of the cluster in parallel.

    Args:
        wanted: Requirements for each machine.

    Raises:
        MachineError: A machine lacks the folder or has different versions; the message names all such machines.
    """
    cloudpickle.register_pickle_by_value(node_probe)  # type: ignore[no-untyped-call]
    try:
        tasks = [(node, _start(node["NodeID"], wanted)) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    finally:
        cloudpickle.unregister_pickle_by_value(node_probe)  # type: ignore[no-untyped-call]
    lines = []
    for node, (task, answer) in tasks:
        try:
            problems = _problems(wanted, ray.get(task, timeout=ANSWER_SECONDS), answer)
        except RayError as error:
            problems = [f"does not answer ({cause_of(error)})"]
        name = f"{node['NodeManagerHostname']} ({node['NodeName']})"
        lines += [f"on machine {name}: {problem}" for problem in problems]
    if lines:
        raise MachineError("\n".join(lines))


def _start(node: str, wanted: StudyMachine) -> tuple[Any, str]:
    """Starts the probe on a machine; returns the task and the name of the file that the machine must write."""
    there, answer = NodeAffinitySchedulingStrategy(node, soft=False), f"{wanted.token}-{node}"
    task: Any = ray.remote(probe)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    return task.options(**options).remote(str(wanted.folder), wanted.token, answer), answer


def _problems(wanted: StudyMachine, found: Mapping[str, str], answer: str) -> list[str]:
    """Returns the differences between a machine and the machine that runs the study."""
    problems = [
        f"{name} must be {mine}, as on the machine that runs the study, got {found[name]}. "
        f"{'Install it there' if found[name] == NOT_INSTALLED else 'Install the same version on both'}."
        for name, mine in wanted.versions.items()
        if found[name] != mine
    ]
    folder = found["folder"]
    if not folder and not (wanted.folder / answer).exists():
        folder = "is a different folder there: a file written on that machine is missing on this one"
    (wanted.folder / answer).unlink(missing_ok=True)
    fix = "Set --studies-dir to a folder that all machines share under the same path"
    return problems + ([f"{wanted.folder} {folder}. {fix}."] if folder else [])


@functools.cache
def _problems_here(folder: str, token: str, mine: tuple[tuple[str, str], ...]) -> list[str]:
    answer = f"{token}-{uuid.uuid4().hex}"
    return _problems(StudyMachine(Path(folder), token, "", dict(mine)), probe(folder, token, answer), answer)
