"""Trains the students of a comparison, in this process or in worker processes, and stores their metrics."""

from __future__ import annotations

import json
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ensdistill.config import Config, content_hash
from ensdistill.data import DataSplits, load_data
from ensdistill.errors import DataError, EnsdistillError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.devices import pick_device
from ensdistill.runtime.files import write_json
from ensdistill.runtime.progress_bar import silence
from ensdistill.training.loop import Distiller
from ensdistill.training.teacher_logits import TeacherLogitCache
from ensdistill.training.teachers import get_ensemble
from ensdistill.version import __version__

Row = dict[str, Any]  # `val`: metrics after the last epoch; `seconds`: duration of the training
_inputs: dict[str, Any] = {}  # data and cache of a worker process, loaded once


@dataclass
class Students:
    """Students of one ensemble; each student is trained once, and its metrics are stored under a hash of all inputs.

    The metrics are written to a file atomically after the training has ended. If the training is interrupted, it starts
    again from the beginning.

    Attributes:
        data: The images.
        ensemble: The teachers.
        studies: The folder of all results.
        workers: Number of processes; 1 trains in this process.
        trained: Number of students that were trained; stored students are not counted.
    """

    data: DataSplits
    ensemble: TeacherEnsemble
    studies: Path
    workers: int = 1
    trained: int = 0
    _pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Students:
        self._cache = TeacherLogitCache(self.ensemble)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def rows(self, configs: Sequence[Config]) -> Iterator[Row]:
        """Yields the row of each student in order, as soon as this row and all earlier rows are available.

        Args:
            configs: Settings of the students, including their seeds.

        Raises:
            DataError: A stored file is damaged.
            DivergedError: The training of a student diverged; metrics of students that completed earlier are stored.
        """
        known = {config.hash: row for config in configs if (row := self._stored(config)) is not None}
        missing = [config for config in configs if config.hash not in known]
        trained = self._train(missing)
        for config in configs:
            while config.hash not in known:
                one, row = next(trained)
                write_json(self._file(one), row)
                self.trained += 1
                known[one.hash] = row
            yield known[config.hash]

    def _train(self, configs: Sequence[Config]) -> Iterator[tuple[Config, Row]]:
        """Yields the settings and the row of each student, in order of completion."""
        if self.workers == 1:
            for config in configs:
                yield config, train(config, self.data, self._cache)
            return
        if not configs:
            return
        self._pool = self._pool or self._new_pool(configs[0])
        futures = {self._pool.submit(_train_in_worker, config): config for config in configs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise EnsdistillError(
                "a worker process ended unexpectedly, possibly because memory ran out. Use --workers 1; students "
                "that have already been trained are not trained again."
            ) from error

    def _new_pool(self, config: Config) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.workers,
            mp_context=multiprocessing.get_context("spawn"),  # a fork would copy the locks of torch's threads
            initializer=_begin_worker,
            initargs=(config, str(self.studies), self.data.train.images.device.type),
        )

    def _file(self, config: Config) -> Path:
        about = [config.hash, self.data.identity, self.ensemble.identity, self.data.train.images.device.type]
        name = content_hash([*about, __version__, torch.__version__])
        return self.studies / "compare" / "students" / f"{name}.json"

    def _stored(self, config: Config) -> Row | None:
        file = self._file(config)
        try:
            row: Row = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(
                f"{file}: not valid JSON; the file may be damaged. Delete the file; the student is then trained again."
            ) from error
        return row


def train(config: Config, data: DataSplits, cache: TeacherLogitCache) -> Row:
    """Trains one student.

    Args:
        config: The settings.
        data: The images.
        cache: Logits of the teachers.

    Returns:
        The row of the student: hash of the settings, seed, validation metrics after the last epoch, and duration in
        seconds.
    """
    epochs = list(Distiller(config, cache.ensemble, data, cache=cache))
    seconds = sum(epoch.seconds for epoch in epochs)
    return {"config_hash": config.hash, "seed": config.seed, "val": epochs[-1].val, "seconds": round(seconds, 2)}


def _begin_worker(config: Config, studies: str, device: str) -> None:
    """Loads the data and the teachers in a worker process, and makes this process end with its parent."""
    disable_malloc_trim()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the process without a traceback
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with silence():
        data = load_data(config.data, studies).to(pick_device(device))
        ensemble = get_ensemble(config, data, Path(studies) / "teachers")
    _inputs.update(data=data, cache=TeacherLogitCache(ensemble))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        signal.raise_signal(signal.SIGKILL)  # immediately, even during a training step


def _train_in_worker(config: Config) -> Row:
    with silence():
        return train(config, _inputs["data"], _inputs["cache"])
