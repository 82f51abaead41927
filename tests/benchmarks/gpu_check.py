"""Measures one GPU: correctness, speed of steps, image input, and parallel trainings. Takes at most 8 minutes.

    make gpu-check
    python -m tests.benchmarks.gpu_check --minutes 8      (in any environment with torch and the core)
    python -m tests.benchmarks.gpu_check --dry-run        (seconds, on the CPU: a test of this script)

Requires no network. Without Ray, Optuna and MLflow, only the study at the end is skipped. Each part runs in a separate
process and is stopped when its time is used up; the rows that it has written are kept.
"""

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ensdistill.evaluation.tables import markdown_table
from ensdistill.runtime.formatting import memory_size
from tests.benchmarks.gpu.rows import DRY, FULL, Row, read_rows, writer

SHARES = {"correctness": 0.17, "speed": 0.33, "sharing": 0.40, "study": 0.10}  # fractions of the available time
MODULES = ("ray", "optuna", "mlflow")
STUDY = Path("search_spaces/cifar10.yaml")
OTHER_STUDY = Path("search_spaces/cluttered_digits.yaml")  # requires no files
COLUMNS = ("part", "what", "measured", "passed")


def measured(parts: Sequence[str], minutes: float, dry: bool, home: Path) -> list[Row]:
    """Returns the rows of all parts; unused time of a part is available to the remaining parts."""
    end, rows = time.monotonic() + 60 * minutes, list[Row]()
    for part in parts:
        left = end - time.monotonic()
        budget = left * SHARES[part] / sum(SHARES[other] for other in parts[parts.index(part) :])
        print(f"--- {part}: at most {max(0, budget):.0f} s", flush=True)
        found = list(_of_part(part, budget, dry, home))
        rows += found
        for row in found:
            print("  ".join(row.cells()), flush=True)
    return rows


def _of_part(part: str, seconds: float, dry: bool, home: Path) -> Sequence[Row]:
    if seconds < 5:
        return [Row(part, "all", "skipped: no time left")]
    if part == "study":
        return [study_row(seconds, dry, home)]
    file = home / f"{part}.jsonl"
    if dry:
        import_module(f"tests.benchmarks.gpu.{part}").run(DRY, writer(file))
        return list(read_rows(file))
    command = [sys.executable, "-m", "tests.benchmarks.gpu_check", "--part", part, "--rows", str(file)]
    ended = _ended(command, seconds, home / f"{part}.log")
    failed = [] if ended == "" else [Row(part, "rest of this part", ended, False)]
    return [*read_rows(file), *failed]


def _ended(command: Sequence[str], seconds: float, log: Path) -> str:
    """Runs a command in a new session and ends all its processes; returns the failure, or an empty string."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # MPS is stopped and workers are ended
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
            return f"stopped after {seconds:.0f} s"
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return "" if code == 0 else f"failed: {lines[-1] if lines else f'exit code {code}'}"


def study_row(seconds: float, dry: bool, home: Path) -> Row:
    """Runs a study for the remaining time: CIFAR-10 if its files are in data/, otherwise cluttered digits."""
    if missing := [name for name in MODULES if importlib.util.find_spec(name) is None]:
        return Row("study", "a study until the time is over", f"skipped: {', '.join(missing)} not installed")
    if dry:
        return Row("study", "a study until the time is over", "skipped: dry run")
    space = STUDY if Path("data/cifar-10-batches-py").exists() else OTHER_STUDY
    changes = [f"budget.minutes={max(0.2, (seconds - 45) / 60):.2f}", "resources.gpus=0.25", "confirmation.top_k=0"]
    words = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "ensdistill_tune", "launch", str(space), "--studies-dir", str(home), *words]
    problem = _ended([*command, "--name", "study"], seconds, home / "study.log")
    file = home / "study" / "study.json"
    if not file.exists():
        return Row("study", space.stem, problem or "wrote no result", False)
    known = json.loads(file.read_text())
    done = sum(known["counts"].values())
    rate = 3600 * done / known["seconds"]
    best = known["best"]["metrics"]["val/nll"] if known["best"] else float("nan")
    result = f"{done} trials in {known['seconds']:.0f} s ({rate:.0f} trials/h), best val/nll {best:.4f}"
    return Row("study", f"{space.stem}, four trials on the GPU", result, figures={"trials_per_h": rate})


def machine() -> dict[str, Any]:
    """Returns the names and versions that identify the machine and the software."""
    facts: dict[str, Any] = {"date": f"{datetime.now():%Y-%m-%d %H:%M}", "cores": len(os.sched_getaffinity(0))}
    facts |= {"python": platform.python_version(), "torch": torch.__version__}
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        facts |= {"gpu": gpu.name, "memory": memory_size(gpu.total_memory), "cuda": torch.version.cuda}
    return facts


def write(rows: Sequence[Row], out: Path) -> Path:
    """Writes the table and the measurements, and returns the path of the table."""
    out.mkdir(parents=True, exist_ok=True)
    file, about = out / f"{datetime.now():%Y-%m-%d-%H%M}.md", machine()
    head = ", ".join(f"{name} {value}" for name, value in about.items())
    file.write_text(f"{head}\n\n{markdown_table(COLUMNS, [row.cells() for row in rows])}\n")
    figures = {"machine": about, "rows": [asdict(row) for row in rows]}
    file.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; returns 1 if a check failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="total time in minutes (8)")
    parser.add_argument("--out", type=Path, default=Path("studies/gpu-check"), help="folder for the dated result files")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on the CPU, in this process")
    parser.add_argument("--part", choices=SHARES, help=argparse.SUPPRESS)  # of the processes started by this one
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # otherwise MPS would not be stopped
        run: Callable[..., None] = import_module(f"tests.benchmarks.gpu.{options.part}").run
        run(FULL, writer(options.rows))
        return 0
    if not options.dry_run and not torch.cuda.is_available():
        print("error: torch finds no GPU; --dry-run shows what is measured", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as home:
        rows = measured(options.parts, options.minutes, options.dry_run, Path(home))
        file = write(rows, options.out)
    print(f"\n{file.read_text()}\nwritten to {file} and {file.with_suffix('.json').name}")
    return int(any(row.passed is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
