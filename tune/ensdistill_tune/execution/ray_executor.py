"""The executor that runs teachers and trials on Ray; starts Ray before this process imports PyTorch."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ensdistill_tune.execution.executor import Executor, interruptible
from ensdistill_tune.execution.ray_cluster import running_ray
from ensdistill_tune.execution.ray_nodes import check_nodes, study_machine
from ensdistill_tune.execution.ray_pieces import check_pieces
from ensdistill_tune.execution.ray_resources import check_resources

if TYPE_CHECKING:
    from ensdistill.data import DataSplits
    from ensdistill.methods.members import TeacherEnsemble
    from ensdistill.training.teachers import Trainer
    from ensdistill_tune.study.study_config import Resources, StudyConfig
    from ensdistill_tune.study.study_state import StudyState


@contextlib.contextmanager
def cluster(study: StudyConfig, home: Path) -> Iterator[None]:
    """Makes Ray available inside the block: this process's instance, a new instance, or the cluster at RAY_ADDRESS.

    Args:
        study: The settings; the required resources and custom pieces are checked on the cluster.
        home: The folder of the study, which must exist on every machine.

    Raises:
        ConfigError: No machine of the cluster has enough resources for a trial, or a machine lacks a custom piece.
        MachineError: A machine lacks the folder of the study, or has different versions.
        DataError: Ray cannot be started.
    """
    logger = logging.getLogger("ray.tune")
    level = logger.level
    with running_ray(worker_environment(study.resources)) as shared:
        logger.setLevel(logging.CRITICAL)  # the console reports failures and their reasons
        try:
            with interruptible():
                check_resources(study)
                if shared:
                    with study_machine(home) as wanted:
                        check_nodes(wanted)
                check_pieces(study)
                yield
        finally:
            logger.setLevel(level)


def worker_environment(given: Resources) -> dict[str, str]:
    """Returns the environment variables that make workers import PyTorch and this package while a study is prepared.

    Ray starts one worker for each CPU in advance, which takes memory. Workers are started in advance only if more than
    half of them will be used. Trials on GPUs use new workers, which import PyTorch only after Ray has assigned a GPU.
    """
    if given.gpus:
        return {"RAY_prestart_worker_first_driver": "0"}
    cpus = os.cpu_count() or 1
    slots = given.max_concurrent or cpus / given.cpus
    return {
        "RAY_prestart_worker_first_driver": str(int(2 * slots > cpus)),
        "RAY_preload_python_modules": "ensdistill_tune.execution.preload",
        # Ray sets this variable only after the import of PyTorch, which would then use all CPUs.
        "OMP_NUM_THREADS": str(max(1, int(given.cpus))),
    }


def _teacher_trainer(given: Resources, device: str) -> Trainer:
    from ensdistill_tune.execution.teacher_tasks import train_side_by_side  # imported here, because it imports torch

    return partial(train_side_by_side, given=given, device=device)


def _run_trials(progress: StudyState, data: DataSplits, ensemble: TeacherEnsemble, curve: Sequence[float]) -> str:
    from ensdistill_tune.execution.ray_runner import run_trials  # imported here, because it imports torch

    return run_trials(progress, data, ensemble, curve)


RAY = Executor(cluster, _teacher_trainer, _run_trials)
