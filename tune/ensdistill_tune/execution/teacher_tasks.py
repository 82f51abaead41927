"""Trains teachers in parallel as Ray tasks, on images that are stored once in Ray's object store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError, EnsdistillError, teacher_name
from ensdistill.training.teachers import ProgressCallback, missing_teachers, train_teacher
from ensdistill_tune.execution.environment import configure_process
from ensdistill_tune.execution.memory import memory_limit
from ensdistill_tune.execution.shared_inputs import SharedData
from ensdistill_tune.study.study_config import Resources


def train_side_by_side(
    config: Config,
    data: DataSplits,
    store: Path,
    progress: ProgressCallback | None = None,
    *,
    given: Resources,
    device: str,
) -> None:
    """Trains the teachers that are missing from the store.

    Each teacher is trained in a separate Ray task; as many tasks run in parallel as the resources allow. The result is
    bit-for-bit identical to that of sequential training.

    Args:
        config: The settings.
        data: Splits of the study.
        store: Folder of the teachers, which must be writable from all machines of the cluster.
        progress: Called with the number of a teacher and with the number of epochs that this teacher has completed.
        given: Resources for the training of one teacher; the same as for a trial.
        device: Value of `--device`.

    Raises:
        ConfigError: Ray has no GPU for the teachers.
        EnsdistillError: The training of a teacher failed; teachers that were completed earlier are kept.
    """
    missing = missing_teachers(config, data, store)
    for teacher in range(config.teachers.count):
        if progress and teacher not in missing:
            progress(teacher, config.teachers.training.epochs)
    if missing:
        gpus = gpus_of_teacher(data, given, device)
        where = "cuda" if gpus else data.train.images.device.type
        task = ray.remote(num_cpus=given.cpus, num_gpus=gpus, max_retries=given.max_retries)(_train)
        shared = ray.put(SharedData.of(data, config.data, store.parent))
        _watch({task.remote(config, m, shared, store.resolve(), where, gpus): m for m in missing}, progress)


def gpus_of_teacher(data: DataSplits, given: Resources, device: str) -> float:
    """Returns the GPU share of a teacher: the share of a trial, or 1 if trials use no GPU and the data are on a GPU.

    Args:
        data: Splits of the study.
        given: Resources of a trial.
        device: Value of `--device`.

    Raises:
        ConfigError: Ray has no GPU, so the training task would wait forever.
    """
    if device == "cpu":
        return 0
    if given.gpus or data.train.images.device.type != "cuda":
        return given.gpus
    if ray.cluster_resources().get("GPU", 0) < 1:  # type: ignore[no-untyped-call]
        raise ConfigError(f"--device {device}: requires a GPU, but Ray has none; use --device cpu")
    return 1


def _train(config: Config, teacher: int, shared: SharedData, store: Path, device: str, gpus: float) -> Iterator[int]:
    """Ray task: yields the number of completed epochs after each epoch; the study receives each value immediately."""
    configure_process()
    with memory_limit(gpus, teacher):
        yield from train_teacher(config, teacher, shared.to(device), store)


def _watch(tasks: dict[Any, int], progress: ProgressCallback | None) -> None:
    """Reports epochs until all tasks have ended. After a failure or an interrupt, the remaining tasks are stopped."""
    running = dict(tasks)
    try:
        while running:
            task: Any = ray.wait(list(running), num_returns=1)[0][0]
            try:
                epochs: int = ray.get(next(task))
            except StopIteration:
                del running[task]
                continue
            if progress:
                progress(running[task], epochs)
    except RayTaskError as error:
        if isinstance(error.cause, EnsdistillError):
            raise error.cause from None
        raise
    except RayError as error:
        raise EnsdistillError(
            f"{teacher_name(running[task])}: its process died repeatedly, possibly because of insufficient memory; "
            "increase resources.cpus and start the study again, so that fewer teachers are trained in parallel"
        ) from error
    finally:
        for task in running:
            ray.cancel(task, force=True)
