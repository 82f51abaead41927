"""Correctness on a GPU: equal results, exact resuming, memory limits, and memory that is freed."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ensdistill import Distiller, TeacherEnsemble, load_config
from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.errors import OutOfMemoryError
from ensdistill.models import build
from ensdistill_tune.execution.memory import memory_limit
from tests.benchmarks.gpu.rows import RESNET, TINY, Note, Row, Sizes, random_splits

PART = "correctness"
OUT = 3  # exit code of the process that runs out of memory
GREEDY = f"""
import torch
torch.cuda.set_per_process_memory_fraction(0.2)
held = []
try:
    while True:
        held.append(torch.empty(2**28, dtype=torch.uint8, device="cuda"))
except torch.OutOfMemoryError:
    raise SystemExit({OUT})
"""
MIB = 2**20


def run(sizes: Sizes, note: Note) -> None:
    """Runs all checks."""
    case = Case(sizes)
    for check in (numbers_twice, resumed, cap, out_of_memory, returned):
        for row in check(case):
            note(row)


class Case:
    """One small training, which every call of `train` repeats from the beginning."""

    def __init__(self, sizes: Sizes) -> None:
        net = TINY if sizes.dry else RESNET
        precision = "float32" if sizes.dry else "bfloat16"
        changes = ["training.epochs=3", f"training.batch_size={sizes.batch}", f"training.precision={precision}"]
        self.config: Config = load_config("latentbe", [*changes, *net, "training.unlabeled_batch_size=0"])
        self.sizes, self.device = sizes, torch.device(sizes.device)
        self.data: DataSplits = random_splits(sizes.images).to(self.device)
        networks = [build(self.config.model, self.data, 100 + m).to(self.device).eval() for m in range(4)]
        self.teachers = TeacherEnsemble(networks, 10, "random")

    @cached_property
    def undisturbed(self) -> list[Any]:
        """The results of one uninterrupted training."""
        return self.train()

    def train(self, interrupted: bool = False) -> list[Any]:
        """Returns loss and validation metrics of each epoch, and the weights of the student."""
        run = Distiller(self.config, self.teachers, self.data)
        epochs = [next(run)]
        if interrupted:
            with tempfile.TemporaryDirectory() as home:
                run.save_checkpoint(Path(home, "checkpoint.pt"))
                run = Distiller(self.config, self.teachers, self.data, resume=Path(home, "checkpoint.pt"))
        epochs += list(run)
        weights = torch.cat([p.detach().float().flatten().cpu() for p in run.student().parameters()])
        return [*((epoch.loss, epoch.val) for epoch in epochs), weights]


def compared(one: list[Any], other: list[Any]) -> tuple[bool, str]:
    """Returns whether two trainings agree bit for bit, and a description of the difference."""
    apart = float((one[-1] - other[-1]).norm() / one[-1].norm())
    equal = one[:-1] == other[:-1] and torch.equal(one[-1], other[-1])
    return equal, "bit for bit" if equal else f"weights differ by {apart:.1e} of their norm"


def numbers_twice(case: Case) -> Iterator[Row]:
    """Checks that the same settings and seed give the same results."""
    equal, words = compared(case.undisturbed, case.train())
    yield Row(PART, "same numbers in two runs", words, equal)


def resumed(case: Case) -> Iterator[Row]:
    """Checks that a training resumed from its checkpoint equals an uninterrupted one."""
    equal, words = compared(case.undisturbed, case.train(interrupted=True))
    yield Row(PART, "resumed equals undisturbed", words, equal)


def cap(case: Case) -> Iterator[Row]:
    """Checks that a training cannot use more than its share of the memory."""
    if case.sizes.dry:
        yield Row(PART, "memory limit of a share", "skipped: requires a GPU")
        return
    total = torch.cuda.get_device_properties(0).total_memory
    within, message = False, ""
    try:
        with memory_limit(0.1):
            torch.empty(total // 20, dtype=torch.uint8, device="cuda")
            within = True
            torch.empty(total // 5, dtype=torch.uint8, device="cuda")
    except OutOfMemoryError as error:
        message = str(error)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    yield Row(PART, "memory limit of a share", message[:160], within and "resources.gpus" in message)


def out_of_memory(case: Case) -> Iterator[Row]:
    """Checks that a process that exceeds its memory share fails alone: a parallel training gives the same numbers."""
    if case.sizes.dry:
        yield Row(PART, "out of memory ends its training alone", "skipped: requires a GPU")
        return
    greedy, others = subprocess.Popen([sys.executable, "-c", GREEDY]), [case.undisturbed]
    while greedy.poll() is None:
        others.append(case.train())
    results = [compared(case.undisturbed, other) for other in others]
    equal, words = next((result for result in results if not result[0]), results[0])
    what = f"exit code {greedy.returncode} (expected {OUT}); {len(others) - 1} parallel trainings: {words}"
    yield Row(PART, "out of memory ends its training alone", what, equal and greedy.returncode == OUT)


def returned(case: Case) -> Iterator[Row]:
    """Checks that the memory of a training is freed after the training."""
    if case.sizes.dry:
        yield Row(PART, "memory is returned", "skipped: requires a GPU")
        return
    before = torch.cuda.memory_reserved()
    with memory_limit(1.0):
        case.train()
    held = torch.cuda.memory_reserved() - before
    yield Row(PART, "memory is returned", f"{max(0, held) / MIB:.0f} MiB more than before", held < 64 * MIB)
