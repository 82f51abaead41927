"""Measures the data path of photographs: memory of a worker, time to build the store, and delivery of batches.

    make bench-data                                   (about 15 minutes on two idle cores)
    python -m tests.benchmarks.bench_data --images 2000

The images are synthetic JPEG files of 400x333 to 500x400 pixels (as in ImageNet), written by the benchmark. The files
of the larger set have different names, but contain only `DISTINCT` different images. Ratios compare CPU seconds, so
that other processes on the machine have little influence.
"""

import argparse
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from PIL import Image, ImageFilter, ImageOps
from rich.console import Console
from rich.table import Table

from ensdistill import Config, Distiller, TeacherEnsemble, load_config, load_data
from ensdistill.data.image_folder import ImageFolder
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.randomness import RandomStreams, deterministic
from ensdistill.training.step import StepContext, distill_step
from ensdistill_tune.execution.shared_inputs import SharedData

SIDE, BATCH, STEPS, DISTINCT, CLASSES = 224, 16, 50, 1000, 10
SMALL, LARGE = 2000, 50_000
MB = 1_000_000


def write_images(folder: Path, count: int, distinct: Path | None = None) -> Path:
    """Writes JPEG files into class folders.

    Args:
        folder: The folder.
        count: Number of images.
        distinct: A folder of JPEG files whose contents are copied; None to generate new images.
    """
    noise, known = np.random.default_rng(0), sorted(distinct.rglob("*.jpg")) if distinct else []
    for n in range(count):
        file = folder / f"class{n % CLASSES}" / f"{n:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        if known:
            shutil.copyfile(known[n % len(known)], file)
            continue
        size = (int(noise.integers(400, 501)), int(noise.integers(333, 401)))
        coarse = Image.fromarray(noise.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        fine = Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        blurred = fine.filter(ImageFilter.GaussianBlur(1))
        Image.blend(coarse.resize(size, Image.Resampling.BICUBIC), blurred, 0.3).save(file, quality=90)
    return folder


def settings(folder: Path) -> Config:
    """Returns settings of a mobilenet_v3_small student that learns from labels on images augmented as for ImageNet."""
    words = ["data.kind=image_folder", f"data.path={folder}", f"data.size={SIDE}", f"training.batch_size={BATCH}"]
    words += ["model.kind=torchvision", "model.name=mobilenet_v3_small", "model.stem=original", "training.threads=1"]
    words += [f"training.augmentation.{word}" for word in ("crop_scale=0.08", "flip=true")]
    return load_config("labels", [*words, "training.precision=float32"])


def decode(file: Path) -> np.ndarray:
    """Returns the pixels of an image, read as by a script that does not use this package."""
    with Image.open(file) as image:
        return np.asarray(ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)).copy()


def build(folder: Path, studies: Path) -> dict[str, float]:
    """Builds the store, and measures its images per CPU second and those of Pillow alone with as many threads."""
    files = sorted(folder.rglob("*.jpg"))
    plain = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for part in (files[:1000], files[1000:2000]):
            start = time.process_time()
            list(pool.map(decode, part))
            plain.append(len(part) / (time.process_time() - start))
    before, wall, found = time.process_time(), time.perf_counter(), ImageFolder(path=str(folder), size=SIDE)
    found.load(studies / "datasets")
    spent, wall = time.process_time() - before, time.perf_counter() - wall
    rates = {"images per CPU second": len(files) / spent, "plain Pillow, images per CPU second": median(plain)}
    start = time.perf_counter()
    data = load_data(settings(folder).data, studies)
    reopened = time.perf_counter() - start
    (studies / "shared.pickle").write_bytes(pickle.dumps(SharedData.of(data, settings(folder).data, studies)))
    store = next((studies / "datasets").glob("[!.]*/images.npy"))
    return rates | {
        "images": len(files),
        "wall seconds": wall,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB,
        "seconds to open it again": reopened,
        "store MB": store.stat().st_size / MB,
    }


class Timer:
    """Measures the CPU seconds and wall seconds since the previous call."""

    def __init__(self) -> None:
        self.last = time.process_time(), time.perf_counter()

    def __call__(self) -> tuple[float, float]:
        now = time.process_time(), time.perf_counter()
        passed = now[0] - self.last[0], now[1] - self.last[1]
        self.last = now
        return passed


def train(folder: Path, studies: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yields `begin`, then `deliver` and `step` for each step of a trial, with their CPU and wall seconds."""
    timer, config = Timer(), settings(folder)
    shared: SharedData = pickle.loads((studies / "shared.pickle").read_bytes())  # noqa: S301 - written above
    data = shared.to("cpu")
    run = Distiller(config, TeacherEnsemble([], len(data.class_names), "none"), data)
    streams = RandomStreams.of(config.seed, "perturbation", 1, run.device)
    context = StepContext(config, run._student, run._optimizer, run._average, streams)
    run._student.train()
    yield "begin", timer()
    for batch in run._batches.epoch(1):
        yield "deliver", timer()
        distill_step(context, *batch, 0.1)
        yield "step", timer()


def worker(folder: Path, studies: Path) -> dict[str, float]:
    """Measures a warm worker: 50 steps of a trial, its memory, then the first step of a second trial."""
    disable_malloc_trim()  # as Ray workers do
    times: dict[str, list[tuple[float, float]]] = {"begin": [], "deliver": [], "step": []}
    with deterministic(1):
        for what, passed in train(folder, studies):
            times[what].append(passed)
            if len(times["step"]) == STEPS:
                break
        memory = psutil.Process().memory_full_info()
        second = []
        for what, passed in train(folder, studies):
            second.append(passed)
            if what == "step":
                break
    deliver, step = (median(cpu for cpu, _ in times[what][1:]) for what in ("deliver", "step"))
    return {
        "USS MB": memory.uss / MB,
        "RSS MB": memory.rss / MB,
        "deliver, CPU ms": deliver * 1000,
        "step, CPU ms": step * 1000,
        "second trial without its step, CPU seconds": sum(cpu for cpu, _ in second) - step,
        "second trial without its step, wall seconds": sum(wall for _, wall in second[:-1]),
    }


def in_process(what: str, folder: Path, studies: Path) -> dict[str, float]:
    """Runs one part of the benchmark in a separate process and returns its measurements."""
    words = [sys.executable, "-m", "tests.benchmarks.bench_data", "--part", what, str(folder), str(studies)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(home: Path, large: int) -> dict[str, dict[str, float]]:
    """Returns all measurements; images and stores of a set are removed before the next set is created."""
    figures, distinct = {}, write_images(home / "distinct", DISTINCT)
    for count in (SMALL, large):
        folder, studies = write_images(home / "images", count, distinct), home / "studies"
        studies.mkdir()
        print(f"building the store of {count:,} images", file=sys.stderr)
        figures[f"build {count}"] = in_process("build", folder, studies)
        print(f"{STEPS} steps on {count:,} images", file=sys.stderr)
        figures[f"worker {count}"] = in_process("worker", folder, studies)
        shutil.rmtree(folder)
        shutil.rmtree(studies)
    return figures


def rows(figures: dict[str, dict[str, float]], large: int) -> Iterator[tuple[str, str, str, str]]:
    """Yields the table rows: quantity, measured value, target, and whether it was reached."""
    builds, workers = ([figures[f"{part} {count}"] for count in (SMALL, large)] for part in ("build", "worker"))
    uss = [figure["USS MB"] for figure in workers]
    yield row(
        f"USS of a worker after {STEPS} steps, {large:,} images - {SMALL:,} images, MB",
        f"{uss[1] - uss[0]:+.0f} ({uss[0]:.0f}, {uss[1]:.0f})",
        "within 100",
        abs(uss[1] - uss[0]) <= 100,
    )
    peak = builds[1]["peak MB"]
    yield row(f"peak memory while building {large:,} images, MB", f"{peak:.0f}", "< 1500", peak < 1500)
    own, plain = (builds[1][name] for name in ("images per CPU second", "plain Pillow, images per CPU second"))
    words = f"{own / plain:.2f} ({own:.0f} / {plain:.0f} images per CPU second)"
    yield row("building the store / plain Pillow", words, ">= 0.9", own / plain >= 0.9)
    deliver, step = (workers[1][name] for name in ("deliver, CPU ms", "step, CPU ms"))
    words = f"{deliver / step:.3f} ({deliver:.0f} / {step:.0f} CPU ms, batch {BATCH})"
    yield row("delivery (gather, random resized crop, flip, float) / step", words, "<= 0.15", deliver / step <= 0.15)
    extra = workers[1]["second trial without its step, CPU seconds"]
    wall = workers[1]["second trial without its step, wall seconds"]
    yield row(
        "second trial to the end of step 1, more than the step, s",
        f"{extra:.2f} CPU, {wall:.2f} wall",
        "<= 2",
        wall <= 2,
    )


def row(what: str, measured: str, target: str, reached: bool) -> tuple[str, str, str, str]:
    """Returns one table row."""
    return what, measured, target, "yes" if reached else "no"


def main() -> None:
    """Measures and prints all values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=LARGE, help=f"number of images of the larger set ({LARGE})")
    parser.add_argument("--home", type=Path, help="existing folder for temporary files, with 9 GB of free space")
    parser.add_argument("--part", nargs=3, metavar=("PART", "FOLDER", "STUDIES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, folder, studies = options.part
        print(json.dumps({"build": build, "worker": worker}[part](Path(folder), Path(studies))))
        return
    with tempfile.TemporaryDirectory(dir=options.home) as home:
        figures = measure(Path(home), options.images)
    table = Table(*("what", "measured", "target", "reached"), title=f"data path, {SIDE} px, torch {torch.__version__}")
    for cells in rows(figures, options.images):
        table.add_row(*cells)
    screen = Console(width=150)
    screen.print(table)
    screen.print_json(json.dumps(figures))


if __name__ == "__main__":
    main()
