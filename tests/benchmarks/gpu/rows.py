"""Rows of `make gpu-check`, sizes of the full run and of the dry run, and helpers shared by all parts."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from ensdistill.data import DataSplits, Split

Note = Callable[["Row"], object]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        part: Part of the benchmark.
        what: The measured or checked property.
        value: The result, as text.
        passed: Whether a correctness check passed; None for a measurement, or if it was skipped.
        figures: The measured numbers.
    """

    part: str
    what: str
    value: str
    passed: bool | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> list[str]:
        """Returns the row as cells of a table."""
        return [self.part, self.what, self.value, {True: "yes", False: "NO", None: ""}[self.passed]]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Attributes:
        device: `cuda`, or `cpu` in a dry run.
        images: Number of training images of the correctness checks.
        batch: Batch size.
        nets: Networks whose steps are measured: name and overrides.
        rounds: Number of rounds; the median over all rounds is reported.
        photos: Number of photographs of the input check.
        side: Side of each photograph in pixels.
        at_once: Numbers of parallel trainings.
        window: Seconds for which each number of trainings is measured.
    """

    device: str
    images: int
    batch: int
    nets: dict[str, tuple[str, ...]]
    rounds: int
    photos: int
    side: int
    at_once: tuple[int, ...]
    window: float

    @property
    def dry(self) -> bool:
        """True for a dry run, which uses one process."""
        return self.device == "cpu"


RESNET = ("model.kind=resnet", "model.depth=20")
WIDE = ("model.kind=wide_resnet", "model.depth=28", "model.width=4")
FULL = Sizes("cuda", 2000, 128, {"ResNet-20": RESNET, "WRN-28-4": WIDE}, 7, 600, 224, (1, 2, 4, 8), 5.0)
TINY = ("model.kind=resnet", "model.depth=8", "model.width=4")
DRY = Sizes("cpu", 40, 8, {"ResNet-8": TINY}, 1, 70, 40, (1,), 0.1)  # one training: torch.fx traces in one thread only


def random_splits(count: int, side: int = 32) -> DataSplits:
    """Returns random RGB images (N,3,side,side) of ten classes, on the CPU."""
    generator = torch.Generator().manual_seed(0)

    def split(size: int) -> Split:
        images = torch.randint(256, (size, 3, side, side), generator=generator, dtype=torch.uint8)
        return Split(images, torch.arange(size) % 10)

    return DataSplits(split(count), split(max(20, count // 4)), split(10), tuple("abcdefghij"), "random")


def seconds_of(work: Callable[[], Any], device: str) -> float:
    """Returns the duration of one call, until the GPU has completed it."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def in_turns(works: list[Callable[[], Any]], rounds: int, device: str) -> list[float]:
    """Returns the median duration of each function; calls alternate, so that other load affects all functions."""
    for work in works * 2:
        seconds_of(work, device)
    times = [[seconds_of(work, device) for work in works] for _ in range(rounds)]
    return [median(column) for column in zip(*times, strict=True)]


def synchronize(device: str) -> None:
    """Waits until the GPU has completed its work."""
    if device == "cuda":
        torch.cuda.synchronize()


class BusyWatch:
    """Measures GPU utilization inside the block with nvidia-smi; `percent` is None if it is unknown."""

    def __enter__(self) -> "BusyWatch":
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
        self._seen: list[float] = []
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self._process = None
            return self
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process:
            self._process.terminate()
            self._thread.join(timeout=5)
            self._process.wait(timeout=5)

    @property
    def percent(self) -> float | None:
        """Mean share of the time in which the GPU ran at least one kernel, in percent."""
        return fmean(self._seen) if self._seen else None

    def in_words(self) -> str:
        """Returns the share as a phrase for the end of a sentence."""
        return "" if self.percent is None else f", GPU busy {self.percent:.0f} %"

    def _read(self) -> None:
        assert self._process is not None
        for line in self._process.stdout or ():
            if line.strip().isdigit():
                self._seen.append(float(line))


def writer(file: Path) -> Note:
    """Returns a function that appends rows to a file, so that the first rows of a stopped part are kept."""

    def note(row: Row) -> None:
        with file.open("a") as opened:
            opened.write(json.dumps(asdict(row)) + "\n")

    return note


def read_rows(file: Path) -> Iterator[Row]:
    """Yields the rows in a file."""
    lines = file.read_text().splitlines() if file.exists() else []
    yield from (Row(**json.loads(line)) for line in lines)
