"""Runs all benchmarks one after another and compares their results with the targets.

    make bench                (about 20 minutes on two idle cores; the tables are written to studies/bench/)

The two sides of every ratio are measured in the same run. The module of each benchmark explains the columns of its
table.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markdown import Markdown

from ensdistill.evaluation.tables import markdown_table
from ensdistill.methods.recipe import fast_in_bfloat16
from tests.benchmarks.precision import table_of as precision_table
from tests.benchmarks.step_speed import COLUMNS, Row, spread

PARTS = ("step_speed", "precision", "study_speed", "memory_growth")


@dataclass(frozen=True)
class Target:
    """A target value and the measured value."""

    what: str
    value: float
    words: str
    target: float
    less: bool = False  # whether smaller values are better

    def cells(self) -> list[str]:
        """Returns the cells of its table row."""
        reached = self.value <= self.target if self.less else self.value >= self.target
        sign = "<=" if self.less else ">="
        return [self.what, self.words, f"{sign} {self.target:g}", "yes" if reached else "no"]


def run(part: str, home: Path) -> Any:
    """Runs one benchmark in a separate process and returns its results."""
    out = home / f"{part}.json"
    print(f"--- {part}", flush=True)
    subprocess.run([sys.executable, "-m", f"tests.benchmarks.{part}", "--json", str(out)], check=True)
    return json.loads(out.read_text())


def targets(figures: dict[str, Any]) -> Iterator[Target]:
    """Yields the targets with the measured values."""
    best = "bfloat16" if fast_in_bfloat16(torch.device("cpu")) else "float32"
    rows = {(row["system"], row["precision"]): Row(**row) for row in figures["step_speed"]}
    goals = {
        ("latentbe", "float32"): 2.5,
        ("latentbe", best): 4.5,
        ("aekd", "float32"): 2.5,
        ("diversity", "float32"): 1.5,
    }
    for (system, precision), goal in goals.items():
        ratio = rows[system, precision].ratio
        what = f"{system}, published procedure in float32 / ours in {precision}"
        yield Target(what, statistics.median(ratio), spread(ratio), goal)
    for precision in dict.fromkeys(("float32", best)):
        share = rows["latentbe", precision].fraction
        what = f"latentbe, fraction of the ceiling, {precision}"
        yield Target(what, statistics.median(share), spread(share), 0.70)
    study = figures["study_speed"]
    value = study["efficiency"]
    yield Target(
        f"study efficiency, {study['trials']} trials of {study['seconds a trial']:.1f} s", value, f"{value:.2f}", 0.9
    )
    value = study["fixed cost a trial, seconds"]
    yield Target("fixed cost a trial, seconds", value, f"{value:.2f}", 0.2, less=True)
    value = figures["memory_growth"]["growth"]
    yield Target("growth of a worker over 200 trials, MiB", value, f"{value:.1f}", 5.0, less=True)


def report(figures: dict[str, Any]) -> str:
    """Returns the complete report as Markdown."""
    lines = [f"{datetime.now():%Y-%m-%d %H:%M}; {os.cpu_count()} cores, {platform.processor() or platform.machine()}, "]
    lines[0] += f"{torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}; medians (quartiles)"
    reached = [target.cells() for target in targets(figures)]
    steps = [Row(**row).cells() for row in figures["step_speed"]]
    lines += ["", markdown_table(("what", "measured", "target", "reached"), reached)]
    lines += ["", markdown_table(COLUMNS, steps, ["ours in"])]
    table = precision_table(figures["precision"])
    names = [str(column.header) for column in table.columns]
    cells = [list(map(str, row)) for row in zip(*(column.cells for column in table.columns), strict=True)]
    lines += ["", str(table.title), "", markdown_table(names, cells)]
    for part in ("study_speed", "memory_growth"):
        values = [(name, f"{value:.3g}") for name, value in figures[part].items()]
        lines += ["", markdown_table((part.replace("_", " "), "value"), values)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs all benchmarks, and prints and stores tables and results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("studies/bench"), help="folder for the dated result files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        figures = {part: run(part, Path(home)) for part in PARTS}
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{datetime.now():%Y-%m-%d-%H%M}.md"
    file.write_text(report(figures))
    file.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")
    Console().print(Markdown(file.read_text()))
    print(f"written to {file}")


if __name__ == "__main__":
    main()
