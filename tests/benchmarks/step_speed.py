"""Compares the time of a training step with that of the published procedure and with that of its convolutions alone.

    python -m tests.benchmarks.step_speed                               (about 15 minutes on two cores)
    python -m tests.benchmarks.step_speed --rounds 3 --systems latentbe (a quick run)

Both procedures run in separate processes and take turns, so that other load on the machine affects both. A ratio is the
median over rounds, with quartiles. A turn consists of two steps, of which the second is timed, because in training each
step follows another step of the same process. `ceiling` is the time of the convolutions of our step alone, one after
another, with the same shapes, precision and layout; the fraction is this time divided by the time of the step. Before
timing, both procedures must give the same loss and gradients of one step in float64, with a relative difference of at
most 1e-5.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ensdistill.config import Config, load_config
from ensdistill.data import DataSplits, Split
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.recipe import Training
from ensdistill.methods.students.base import Student
from ensdistill.models import build
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.randomness import RandomStreams
from ensdistill.training.new_student import new_student
from ensdistill.training.step import StepContext, distill_step
from tests.benchmarks import official

SYSTEMS = ("latentbe", "diversity", "aekd", "ekd", "unikd", "kd")
BATCH = 128
CPU = torch.device("cpu")
Work = Callable[[], Any]


class System:
    """Teachers, student and batch of one system; the same in every process."""

    def __init__(
        self,
        name: str,
        dtype: torch.dtype = torch.float32,
        batch: int = BATCH,
        *overrides: str,
        device: torch.device = CPU,
    ) -> None:
        sizes = [
            "data.train_size=200",
            "training.batch_size=128",
            "model.kind=resnet",
            "training.unlabeled_batch_size=0",
        ]
        self.config: Config = load_config(name, [*sizes, *overrides])
        self.data = random_data()
        count = 5 if name == "aekd" else 4
        self.device = device
        networks = [build(self.config.model, self.data, 100 + m) for m in range(count)]
        self.teachers = [network.to(device, dtype).eval() for network in networks]
        student = new_student(self.config, self.data).to(device, dtype).train()
        self.student: Student = student.to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.student.parameters():  # makes the subnetworks different
                p.add_(0.05 * torch.randn(p.shape, generator=generator).to(device))
        images, labels = self.data.train[slice(0, batch)]
        self.images = images.to(device, dtype)
        self.labels = labels.clone().to(device)
        if name == "unikd":
            self.labels[-batch // 4 :] = -1

    def streams(self) -> RandomStreams:
        return RandomStreams.of(0, "benchmark", 1, self.device)

    def published(self) -> Work:
        """Returns one step of the published procedure."""
        teachers = [official.plain(t).requires_grad_(False) for t in self.teachers]
        student = official.plain_student(self.student)
        optimizer = self.config.training.new_optimizer(student)

        def step() -> tuple[Tensor, Student]:
            loss = official.gradients(self.config, teachers, student, self.images, self.labels, self.streams())
            optimizer.step()
            return loss, student

        return step

    def ours(self, precision: str = "float32") -> Work:
        """Returns one step of this project."""
        training = {"precision": precision} if "precision" in Training.model_fields else {}
        config = self.config.model_copy(update={"training": self.config.training.model_copy(update=training)})
        ensemble = TeacherEnsemble(self.teachers, len(self.data.class_names), "random")
        optimizer = config.training.new_optimizer(self.student)
        average = config.averaging(self.student)

        def step() -> tuple[Tensor, Student]:
            context = StepContext(config, self.student, optimizer, average, self.streams())
            return distill_step(context, ensemble, self.images, self.labels, 0.5), self.student

        return step


def random_data() -> DataSplits:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        return Split(
            torch.randint(256, (count, 3, 32, 32), generator=generator).to(torch.uint8), torch.arange(count) % 10
        )

    return DataSplits(split(BATCH), split(2), split(2), tuple("abcdefghij"), "random")


def difference(step: Work, other: Work) -> float:
    """Returns the largest relative difference between losses and gradients of two first steps."""
    (loss, student), (other_loss, other_student) = step(), other()
    gradients = dict(student.named_parameters())
    apart = [float((loss - other_loss).abs() / other_loss.abs())]
    for name, p in other_student.named_parameters():
        mine, theirs = gradients[name].grad, p.grad
        apart.append(float((mine - theirs).norm() / theirs.norm().clamp(min=1e-12 * loss)))
    return max(apart)


# --- the ceiling ----------------------------------------------------------------------------------------------------


class Convolutions(TorchDispatchMode):
    """Records every convolution and every backward pass of a convolution, and counts their operations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self._note(func, args, out, args[1], 1)
        elif func is torch.ops.aten.convolution_backward.default:
            self._note(func, args, args[0], args[2], sum(args[-1][:2]))  # gradient for the input, the weights, or both
        return out

    def _note(self, func: Any, args: Any, outputs: Tensor, weight: Tensor, times: int) -> None:
        self.calls.append((func, tuple(_like(a) if isinstance(a, Tensor) else a for a in args)))
        self.flops += 2 * times * outputs.numel() * weight[0].numel()


def _like(tensor: Tensor) -> tuple[Any, ...]:
    return ("tensor", tuple(tensor.shape), tensor.stride(), tensor.dtype)


def convolutions_of(step: Work) -> tuple[Work, float]:
    """Returns a function that runs only the convolutions of a step, and their number of operations."""
    with Convolutions() as noted:
        step()
    made: dict[tuple[Any, ...], Tensor] = {}

    def made_anew(argument: Any) -> Any:
        if not (isinstance(argument, tuple) and argument and argument[0] == "tensor"):
            return argument
        if argument not in made:
            _, shape, stride, dtype = argument
            made[argument] = torch.empty_strided(shape, stride, dtype=dtype).normal_()
        return made[argument]

    calls = [(func, [made_anew(a) for a in args]) for func, args in noted.calls]

    def run() -> None:
        with torch.no_grad():
            for func, args in calls:
                func(*args)

    return run, float(noted.flops)


# --- turns ----------------------------------------------------------------------------------------------------------


def worker(name: str, who: str, threads: int, told: Connection) -> None:
    """Sends the FLOPs of a step and then, for each request, the seconds of a step or of its ceiling."""
    torch.set_num_threads(threads)
    system = System(name)
    if who == "official":
        step = system.published()
    else:
        disable_malloc_trim()
        step = system.ours(who)
    convolutions, flops = convolutions_of(step)
    works = {"step": step, "ceiling": convolutions}
    for work in (*works.values(), *works.values()):
        work()
    told.send(flops)
    while (wanted := told.recv()) is not None:
        works[wanted]()
        start = time.perf_counter()
        works[wanted]()
        told.send(time.perf_counter() - start)


@dataclass(frozen=True)
class Row:
    """Measured times of one system in one precision, in seconds per turn, and the number of operations of a step."""

    system: str
    precision: str
    published: list[float]
    ours: list[float]
    ceiling: list[float]
    published_flops: float
    flops: float

    @property
    def ratio(self) -> list[float]:
        """Time of the published procedure divided by ours."""
        return [p / o for p, o in zip(self.published, self.ours, strict=True)]

    @property
    def fraction(self) -> list[float]:
        """Fraction of the ceiling that the step reaches."""
        return [c / o for c, o in zip(self.ceiling, self.ours, strict=True)]

    def cells(self) -> list[str]:
        """Returns the cells of its table row."""
        flops = [f"{self.published_flops / 1e9:.0f}", f"{self.flops / 1e9:.0f}"]
        seconds = [f"{statistics.median(values):.3f}" for values in (self.published, self.ours, self.ceiling)]
        rate = f"{self.flops / statistics.median(self.ours) / 1e9:.0f}"
        return [self.system, self.precision, spread(self.ratio), spread(self.fraction), *seconds, *flops, rate]


COLUMNS = ("system", "ours in", "published / ours", "of the ceiling", "published s", "ours s", "ceiling s")
COLUMNS += ("published GFLOP", "ours", "GFLOP/s")


def measure(name: str, precisions: list[str], rounds: int, threads: int) -> Iterator[Row]:
    """Yields one row per precision."""
    ends: dict[str, Connection] = {}
    context = multiprocessing.get_context("spawn")
    flops = {}
    for who in ["official", *precisions]:
        ends[who], end = context.Pipe()
        context.Process(target=worker, args=(name, who, threads, end), daemon=True).start()
        end.close()  # closed here, so that the end of the worker is detected
        flops[who] = ends[who].recv()

    def ask(who: str, wanted: str) -> float:
        ends[who].send(wanted)
        return float(ends[who].recv())

    asked = [("official", "step"), *((who, what) for who in precisions for what in ("step", "ceiling"))]
    for pair in asked:  # warm-up of memory and caches
        ask(*pair)
    seconds: dict[tuple[str, str], list[float]] = {pair: [] for pair in asked}
    for _ in range(rounds):
        for pair in asked:
            seconds[pair].append(ask(*pair))
    for end in ends.values():
        end.send(None)
    for who in precisions:
        times = (seconds["official", "step"], seconds[who, "step"], seconds[who, "ceiling"])
        yield Row(name, who, *times, flops["official"], flops[who])


def spread(values: list[float]) -> str:
    """Returns median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def check(name: str) -> None:
    """Exits with an error if the two procedures do not give the same loss and gradients."""
    system, other = (System(name, torch.float64, 8) for _ in range(2))
    apart = difference(system.ours(), other.published())
    if apart > 1e-5:
        raise SystemExit(f"{name}: losses or gradients differ by {apart:.1e}; the limit is 1e-5")


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args()
    table = Table(*COLUMNS, title=f"ResNet-20, batch {BATCH}, {options.threads} threads: medians (quartiles)")
    rows = []
    for name in options.systems:
        check(name)
        for row in measure(name, options.precisions, options.rounds, options.threads):
            rows.append(row)
            table.add_row(*row.cells())
            print("  ".join(row.cells()[:4]), flush=True)
    Console(width=160).print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
