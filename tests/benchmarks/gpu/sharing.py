"""Trials per hour with 1, 2, 4 and 8 parallel trainings on a GPU, with or without pinned cores and MPS."""

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.benchmarks.gpu.rows import BusyWatch, Note, Row, Sizes, synchronize
from tests.benchmarks.step_speed import System

PART = "sharing"
STEPS_OF_A_TRIAL = 30 * 50_000 // 128  # 30 epochs of CIFAR
CONTROL = "nvidia-cuda-mps-control"
GAIN = 1.2  # speedup by MPS above which a setting for MPS would be worthwhile


def run(sizes: Sizes, note: Note) -> None:
    """Measures each number of parallel trainings, without and with MPS."""
    without = measure(sizes, "without MPS", note)
    reason = why_no_mps(sizes)
    if reason:
        note(Row(PART, "with MPS", f"skipped: {reason}"))
        return
    try:
        with mps():
            within = measure(sizes, "with MPS", note)
    except (OSError, subprocess.SubprocessError, EOFError) as error:
        note(Row(PART, "with MPS", f"skipped: it could not be used ({error})"))
        return
    gain = max(within) / max(without)
    words = "a setting would pay" if gain > GAIN else "no setting"
    note(Row(PART, f"best with MPS / best without (limit {GAIN})", f"{gain:.2f}: {words}", figures={"gain": gain}))


def measure(sizes: Sizes, mode: str, note: Note) -> list[float]:
    """Measures each number of parallel trainings and returns the trials per hour."""
    found, cores = [], sorted(os.sched_getaffinity(0))
    with trainings(sizes) as ends:
        for pinned in (False, True):
            for count in sizes.at_once:
                for n, end in enumerate(ends[:count]):
                    own = cores[n * len(cores) // count : (n + 1) * len(cores) // count] if pinned else cores
                    end.send((sizes.window, own or cores))
                with BusyWatch() as busy:
                    rates = [end.recv() for end in ends[:count]]
                found.append(sum(rates) * 3600 / STEPS_OF_A_TRIAL)
                what = f"{count} at once, {mode}{', own cores' if pinned else ''}: trials/h"
                figures = {"trials_per_h": found[-1], "steps_per_s": rates, "busy_percent": busy.percent}
                note(Row(PART, what, f"{found[-1]:.1f}{busy.in_words()}", figures=figures))
    return found


@contextlib.contextmanager
def trainings(sizes: Sizes) -> Iterator[list[Connection]]:
    """Yields connections to ready trainings: in processes, or in threads of this process in a dry run."""
    context, pairs = multiprocessing.get_context("spawn"), [multiprocessing.Pipe() for _ in range(max(sizes.at_once))]
    start: Any = threading.Thread if sizes.dry else context.Process
    workers = [start(target=train, args=(sizes, theirs), daemon=True) for _, theirs in pairs]
    for worker in workers:
        worker.start()
    for _, theirs in [] if sizes.dry else pairs:
        theirs.close()  # the end of a worker then ends its connection
    ends = [mine for mine, _ in pairs]
    try:
        for end in ends:
            if not end.poll(120):
                raise EOFError("a training did not start")
            end.recv()
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                end.send(None)
        for worker in workers:
            worker.join(timeout=10)
            if not sizes.dry and worker.is_alive():
                worker.kill()


def train(sizes: Sizes, end: Connection) -> None:
    """Trains each time it receives (seconds, cores), and sends the steps per second; None ends the loop."""
    if not sizes.dry:
        torch.set_num_threads(1)
    net = next(iter(sizes.nets.values()))
    step = System("latentbe", torch.float32, sizes.batch, *net, device=torch.device(sizes.device)).ours("bfloat16")
    step()
    end.send("ready")
    while (order := end.recv()) is not None:
        seconds, cores = order
        if not sizes.dry:
            for thread in os.listdir("/proc/self/task"):  # the backward pass runs in a separate thread
                os.sched_setaffinity(int(thread), cores)
        begun, steps = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            step()
            synchronize(sizes.device)  # a real training waits at least once per epoch; here after each step
            steps += 1
        end.send(steps / (time.perf_counter() - begun))


def why_no_mps(sizes: Sizes) -> str:
    """Returns the reason why MPS cannot be measured; empty if it can be measured."""
    if sizes.dry:
        return "requires a GPU"
    if shutil.which(CONTROL) is None:
        return f"{CONTROL} is not installed"
    if "CUDA_MPS_PIPE_DIRECTORY" in os.environ or os.path.exists("/tmp/nvidia-mps/control"):  # noqa: S108
        return "a daemon that this script did not start is running"
    return ""


@contextlib.contextmanager
def mps() -> Iterator[None]:
    """Runs the MPS daemon for processes that start inside the block."""
    with tempfile.TemporaryDirectory() as home:
        folders = {"CUDA_MPS_PIPE_DIRECTORY": f"{home}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{home}/log"}
        for folder in folders.values():
            os.mkdir(folder)
        os.environ.update(folders)
        try:
            subprocess.run([CONTROL, "-d"], check=True, timeout=20, capture_output=True)
            yield
        finally:
            subprocess.run([CONTROL], input="quit\n", text=True, timeout=30, capture_output=True, check=False)
            for name in folders:
                del os.environ[name]
