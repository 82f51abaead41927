"""How fast a step is: the published procedure, written plainly, against ours, and what convolutions alone would take.

    make bench                                       (about 10 minutes on two cores; the table goes to studies/bench/)
    python -m tests.benchmarks.step_speed --rounds 3 --systems latentbe

Both run in processes of their own and take turns, so that whatever else the machine does meets both; a ratio is the
median over rounds, with the quartiles. `ceiling`: the convolutions of our step, the same shapes in the same precision
and layout, one after another and nothing else; the fraction is that time over the step's. Before anything is timed both
give the loss and the gradients of one step in float64; the largest relative difference must stay below 1e-5.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ensdistill.allocator import keep_freed_memory
from ensdistill.config import Config, load_config
from ensdistill.data import Data, Split
from ensdistill.distill import new_student
from ensdistill.members import Ensemble
from ensdistill.models import build
from ensdistill.optimiser import Training
from ensdistill.randomness import Streams
from ensdistill.step import distill_step
from ensdistill.students import Student
from tests.benchmarks import official

SYSTEMS = ("latentbe", "diversity", "aekd", "ekd", "unikd", "kd")
BATCH = 128
CPU = torch.device("cpu")
Work = Callable[[], Any]


class System:
    """One system's teachers, student and batch; the same in every process."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32, batch: int = BATCH, *overrides: str) -> None:
        sizes = ["data.train=200", "training.batch_size=128", "model.kind=resnet", "training.unlabelled=0"]
        self.config: Config = load_config(name, [*sizes, *overrides])
        self.data = random_data()
        count = 5 if name == "aekd" else 4
        self.teachers = [build(self.config.model, self.data, 100 + m).to(dtype).eval() for m in range(count)]
        self.student: Student = new_student(self.config, self.data).to(dtype).train()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.student.parameters():  # so that subnetworks differ
                p.add_(0.05 * torch.randn(p.shape, generator=generator))
        images, labels = self.data.train[slice(0, batch)]
        self.images = images.to(dtype)
        self.labels = labels.clone()
        if name == "unikd":
            self.labels[-batch // 4 :] = -1

    def streams(self) -> Streams:
        return Streams.of(0, "benchmark", 1, CPU)

    def published(self) -> Work:
        """One step of the published procedure."""
        teachers = [official.plain(t).requires_grad_(False) for t in self.teachers]
        student = official.plain_student(self.student)
        optimiser = self.config.training.optimiser(student)

        def step() -> tuple[Tensor, Student]:
            loss = official.gradients(self.config, teachers, student, self.images, self.labels, self.streams())
            optimiser.step()
            return loss, student

        return step

    def ours(self, precision: str = "float32") -> Work:
        """One step of this project."""
        training = {"precision": precision} if "precision" in Training.model_fields else {}
        config = self.config.model_copy(update={"training": self.config.training.model_copy(update=training)})
        ensemble = Ensemble(self.teachers, len(self.data.class_names), "random")
        optimiser = config.training.optimiser(self.student)
        average = config.averaging(self.student)

        def step() -> tuple[Tensor, Student]:
            where = (self.images, self.labels, self.streams(), 0.5)
            return distill_step(config, ensemble, self.student, optimiser, average, *where), self.student

        return step


def random_data() -> Data:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        return Split(
            torch.randint(256, (count, 3, 32, 32), generator=generator).to(torch.uint8), torch.arange(count) % 10
        )

    return Data(split(BATCH), split(2), split(2), tuple("abcdefghij"), "random")


def difference(step: Work, other: Work) -> float:
    """The largest relative difference of losses and gradients of two first steps."""
    (loss, student), (other_loss, other_student) = step(), other()
    gradients = dict(student.named_parameters())
    apart = [float((loss - other_loss).abs() / other_loss.abs())]
    for name, p in other_student.named_parameters():
        mine, theirs = gradients[name].grad, p.grad
        apart.append(float((mine - theirs).norm() / theirs.norm().clamp(min=1e-12 * loss)))
    return max(apart)


# --- the ceiling ----------------------------------------------------------------------------------------------------


class Convolutions(TorchDispatchMode):
    """Takes down every convolution and every backward pass of one, and counts their operations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self._note(func, args, out, args[1], 1)
        elif func is torch.ops.aten.convolution_backward.default:
            self._note(func, args, args[0], args[2], sum(args[-1][:2]))  # to the input, to the weights, or both
        return out

    def _note(self, func: Any, args: Any, outputs: Tensor, weight: Tensor, times: int) -> None:
        self.calls.append((func, tuple(_like(a) if isinstance(a, Tensor) else a for a in args)))
        self.flops += 2 * times * outputs.numel() * weight[0].numel()


def _like(tensor: Tensor) -> tuple[Any, ...]:
    return ("tensor", tuple(tensor.shape), tensor.stride(), tensor.dtype)


def convolutions_of(step: Work) -> tuple[Work, float]:
    """The convolutions of a step and nothing else, and how many operations they are."""
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
    """Gives the seconds of one step, or of one ceiling, whenever it is asked for; first of all the FLOPs of a step."""
    torch.set_num_threads(threads)
    system = System(name)
    if who == "official":
        step = system.published()
    else:
        keep_freed_memory()
        step = system.ours(who)
    convolutions, flops = convolutions_of(step)
    works = {"step": step, "ceiling": convolutions}
    for work in (*works.values(), *works.values()):
        work()
    told.send(flops)
    while (wanted := told.recv()) is not None:
        start = time.perf_counter()
        works[wanted]()
        told.send(time.perf_counter() - start)


def measure(name: str, precisions: list[str], rounds: int, threads: int) -> Iterator[str]:
    """A row of the table for each precision."""
    whos = ["official", *precisions]
    ends: dict[str, Connection] = {}
    context = multiprocessing.get_context("spawn")
    flops = {}
    for who in whos:
        ends[who], end = context.Pipe()
        context.Process(target=worker, args=(name, who, threads, end), daemon=True).start()
        end.close()  # the worker's alone, so that its death is seen here
        flops[who] = ends[who].recv()

    def ask(who: str, wanted: str) -> float:
        ends[who].send(wanted)
        return float(ends[who].recv())

    seconds: list[dict[str, float]] = []
    for _ in range(rounds):
        row = {who: ask(who, "step") for who in whos}
        seconds.append(row | {f"{who} ceiling": ask(who, "ceiling") for who in precisions})
    for end in ends.values():
        end.send(None)
    for who in precisions:
        ratio = spread([row["official"] / row[who] for row in seconds])
        fraction = spread([row[f"{who} ceiling"] / row[who] for row in seconds])
        fastest = min(row[who] for row in seconds)
        rate = flops[who] / fastest / 1e9
        times = f"{min(row['official'] for row in seconds):.3f} | {fastest:.3f}"
        counts = f"{flops['official'] / 1e9:.0f} | {flops[who] / 1e9:.0f}"
        yield f"| {name} | {who} | {ratio} | {fraction} | {times} | {counts} | {rate:.0f} |"


def spread(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="studies/bench", help="folder of the dated table")
    options = parser.parse_args()
    lines = [
        f"ResNet-20, batch {BATCH}, {options.threads} threads, {options.rounds} turns, torch {torch.__version__}",
        "medians (quartiles) of ratios, least seconds",
        "",
        "| system | ours in | published / ours | of the ceiling | published s | ours s | GFLOP | ours | GFLOP/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.systems:
        system, other = (System(name, torch.float64, 8) for _ in range(2))
        apart = difference(system.ours(), other.published())
        if apart > 1e-5:
            raise SystemExit(f"{name}: losses or gradients differ by {apart:.1e}; the rule is 1e-5")
        for line in measure(name, options.precisions, options.rounds, options.threads):
            lines.append(line)
            print(line, flush=True)
    file = Path(options.out) / f"step_speed-{datetime.now():%Y-%m-%d-%H%M}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    print(f"written to {file}")


if __name__ == "__main__":
    main()
