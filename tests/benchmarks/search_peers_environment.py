"""A temporary environment with other packages, and the searches that run in it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.benchmarks.curve_table import CurveTable
from tests.benchmarks.table_search import Story

PACKAGES = (
    *("optuna==5.0.0", "smac==2.4.1", "confopt==2.0.1", "torch==2.15.0"),
    *("syne-tune[blackbox-repository]==0.16.0", "huggingface_hub"),  # Syne Tune does not declare the second
)
MISSING = {"HEBO 0.3.6": "its dependency GPy 1.9.9 does not compile for Python 3.11 or later"}
ROOT = Path(__file__).parents[2]


@contextmanager
def environment() -> Iterator[Path]:
    """Yields the Python interpreter of a new environment, which is deleted afterwards."""
    with tempfile.TemporaryDirectory() as home:
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home + "/peers"], check=True)
        python = Path(home, "peers", "bin", "python")
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *PACKAGES], check=True)
        yield python


def run(python: Path, peer: str, table: CurveTable, trials: int, seeds: Sequence[int]) -> list[Story]:
    """Returns the searches of one peer, one for each seed; one search per core runs at a time.

    Raises:
        RuntimeError: The peer failed; the message contains its output.
    """
    cores = os.cpu_count() or 1
    parts = [seeds[n::cores] for n in range(cores)]
    with ThreadPoolExecutor() as threads:
        runs = threads.map(partial(_run_part, python, peer, table, trials), parts)
        found = {
            seed: story for part, ran in zip(parts, runs, strict=True) for seed, story in zip(part, ran, strict=True)
        }
    return [found[seed] for seed in seeds]


def _run_part(python: Path, peer: str, table: CurveTable, trials: int, seeds: Sequence[int]) -> list[Story]:
    """Runs the searches of some seeds in one process."""
    scheduler = table.task.study.scheduler.model_dump()
    job = {
        "axes": table.axes,
        "settings": table.settings,
        "curves": table.curves.tolist(),
        "trials": trials,
        "seeds": list(seeds),
        "grace": scheduler["grace_epochs"],
        "factor": scheduler["reduction_factor"],
    }
    with tempfile.TemporaryDirectory() as home:
        source, target = Path(home, "job.json"), Path(home, "stories.json")
        source.write_text(json.dumps(job))
        command = [python, "-m", "tests.benchmarks.search_peers", peer, source, target]
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{peer} failed:\n{done.stderr}")
        return [[(trained, row) for trained, row in story] for story in json.loads(target.read_text())]
