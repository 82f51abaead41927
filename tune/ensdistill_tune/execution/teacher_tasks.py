"""Teachers trained side by side as Ray tasks, on images that Ray's object store holds once."""

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
    """Trains the teachers that are missing in the store as Ray tasks, as many at a time as fit, each to the same bit.

    given: what each is given, the same as a trial. device: what `--device` says. All machines of a cluster must see
    the store.

    Raises what the training of a teacher raises. The teachers that are trained by then are kept.
    """
    missing = missing_teachers(config, data, store)
    for teacher in range(config.teachers.count):
        if progress and teacher not in missing:
            progress(teacher, config.teachers.training.epochs)
    if missing:
        gpus = gpus_of_teacher(data, given, device)
        where = "cuda" if gpus else data.train.images.device.type
        task = ray.remote(num_cpus=given.cpus, num_gpus=gpus, max_retries=given.max_retries)(_train)
        shared = ray.put(SharedData.of(data))
        _watch({task.remote(config, m, shared, store.resolve(), where, gpus): m for m in missing}, progress)


def gpus_of_teacher(data: DataSplits, given: Resources, device: str) -> float:
    """How much of a GPU a teacher is given: as much as a trial; a whole one if trials have none and this process does.

    Raises ConfigError if there is none to give; Ray would wait for ever.
    """
    if device == "cpu":
        return 0
    if given.gpus or data.train.images.device.type != "cuda":
        return given.gpus
    if ray.cluster_resources().get("GPU", 0) < 1:  # type: ignore[no-untyped-call]
        raise ConfigError(f"--device {device}: Ray has no GPU to train teachers on; give --device cpu")
    return 1


def _train(config: Config, teacher: int, shared: SharedData, store: Path, device: str, gpus: float) -> Iterator[int]:
    """The task. What it yields arrives at once: the number of epochs done."""
    configure_process()
    with memory_limit(gpus, teacher):
        yield from train_teacher(config, teacher, shared.to(device), store)


def _watch(tasks: dict[Any, int], progress: ProgressCallback | None) -> None:
    """Passes on the epochs of all tasks until they are done. If one fails, or we are interrupted, all are ended."""
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
            f"{teacher_name(running[task])}: its process died each time, perhaps for want of memory; start the "
            "study again, with a larger resources.cpus if fewer should run side by side"
        ) from error
    finally:
        for task in running:
            ray.cancel(task, force=True)
