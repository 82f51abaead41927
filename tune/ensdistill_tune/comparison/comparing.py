"""Compares settings with paired seeds, round by round, until the sequential test reaches a decision."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from ensdistill.config import content_hash, to_yaml
from ensdistill.errors import ConfigError, format_value
from ensdistill.pipeline import load_inputs
from ensdistill.runtime.files import ensure_writable_dir, write_json, write_text
from ensdistill.runtime.progress_bar import console, silence
from ensdistill_tune.analysis.sequential_test import LEVEL, MOST_PAIRS, fewest_pairs
from ensdistill_tune.comparison.contenders import Contender, Given, contenders_of, parsed
from ensdistill_tune.comparison.result import ComparisonResult, PairResult, pair_of
from ensdistill_tune.comparison.students import Students
from ensdistill_tune.study.objectives import metric_directions


def compare(
    *settings: Given,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    metric: str = "val/nll",
    seeds: int = MOST_PAIRS,
    first_seed: int = 0,
    studies_dir: str | Path = "studies",
    device: str = "auto",
    workers: int = 1,
    progress: str | Console = "auto",
) -> ComparisonResult:
    """Compares the first settings with each of the others, on the same data and teachers.

    For each seed, one student is trained per contender. After each seed, a group-sequential test checks whether a
    decision has been reached; see `ensdistill_tune.analysis.sequential_test`. The metrics of trained students are
    stored, so that a second call does not train the same students again. The test images are not read.

    Args:
        settings: Two or more contenders, each given as the name of a preset, a settings file, a study (its best trial),
            `STUDY:TRIAL`, or a `Config`.
        config: Settings file or study file that sets the data and teachers for all contenders, and the model and
            training for presets. If None, these settings are taken from the first contender that is not a preset, or
            from `cluttered_digits` if all contenders are presets.
        overrides: Settings applied to all contenders: a mapping keyed by dotted name, or strings such as `a.b=value`.
        metric: Validation metric to compare, such as `val/nll`.
        seeds: Maximum number of seeds, from 6 to 20.
        first_seed: The first seed of the students.
        studies_dir: The folder of all results.
        device: `auto` or a torch device.
        workers: Number of processes. With more than one process, a script must guard its entry point with
            `if __name__ == "__main__":`.
        progress: `auto` prints one line per seed, `off` prints nothing. If a rich console is given, the lines are
            printed to that console.

    Returns:
        The result, which is also stored in `<studies_dir>/compare/<hash>/`.

    Raises:
        ConfigError: Settings or arguments are invalid.
        DataError: Data, teachers or files cannot be read.
        DivergedError: The training of a student failed.
    """
    with silence() if progress == "off" else nullcontext():
        screen = progress if isinstance(progress, Console) else console()
        studies = Path(studies_dir)
        contenders = contenders_of(settings, studies, config, parsed(overrides))
        mode = _mode(contenders, metric)
        _check_numbers(contenders, seeds, first_seed, workers)
        return _run(_Rules(metric, mode, seeds, first_seed), contenders, studies, device, workers, screen)


@dataclass(frozen=True)
class _Rules:
    """Rules of a comparison: the metric, its direction, and the seeds."""

    metric: str
    mode: str
    seeds: int
    first_seed: int


def _run(
    rules: _Rules, contenders: Sequence[Contender], studies: Path, device: str, workers: int, screen: Console
) -> ComparisonResult:
    first, *others = (one.config for one in contenders)
    data, ensemble = load_inputs(first, ensure_writable_dir(studies), device, others)
    about = [[one.config.hash for one in contenders], data.identity, ensemble.identity, rules.metric, rules.first_seed]
    folder = studies / "compare" / content_hash(about)
    with Students(data, ensemble, studies, workers) as students:
        progress = _Comparison(rules, contenders, students)
        for line in progress.rounds():
            screen.print(line, soft_wrap=True)
        result = progress.result(folder)
    _write(result, contenders)
    known = len([value for values in result.values.values() for value in values])
    screen.print(f"students: {students.trained} trained, {known - students.trained} from earlier comparisons")
    return result


@dataclass
class _Comparison:
    """A comparison in progress, based on the result rows of its students."""

    rules: _Rules
    contenders: Sequence[Contender]
    students: Students
    values: dict[str, list[float]] = field(init=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.values = {one.name: [] for one in self.contenders}

    def rounds(self) -> Iterator[str]:
        """Runs the seeds in order and yields one line for each seed.

        A decision requires a minimum number of seeds, so the first round runs this many seeds together.
        """
        done, left = 0, list(self.contenders)
        while done < self.rules.seeds and len(left) > 1:
            until = min(max(done + 1, fewest_pairs(LEVEL / 2)), self.rules.seeds)
            jobs = [(n, one) for n in range(done, until) for one in left]
            rows = self.students.rows([one.with_seed(self.rules.first_seed + n) for n, one in jobs])
            for (n, one), row in zip(jobs, rows, strict=True):
                self.values[one.name].append(self._value(row["val"]))
                self.seconds += row["seconds"]
                if one is left[-1]:
                    yield self._line(n, left)
            done, left = until, self._undecided(left)

    def _value(self, metrics: Mapping[str, float]) -> float:
        name = self.rules.metric.removeprefix("val/")
        if name not in metrics:
            raise ConfigError(f"--metric {self.rules.metric}: not reported for these images")
        return metrics[name]

    def _undecided(self, left: Sequence[Contender]) -> list[Contender]:
        """Returns the contenders that require more seeds, including the first; empty if the result is decided."""
        pairs = {one.name: self._pair(one.name) for one in self.contenders[1:]}
        if any(pair.outcome == "worse" for pair in pairs.values()):
            return []
        return [one for one in left if one is self.contenders[0] or not pairs[one.name].ended]

    def _pair(self, other: str) -> PairResult:
        return pair_of(self.rules.metric, self.rules.mode, self.contenders[0].name, other, self.values)

    def _line(self, n: int, left: Sequence[Contender]) -> str:
        """Returns a line with all values for one seed; in parentheses, the first contender minus the other."""
        first, *others = (one.name for one in left)
        own = self.values[first][n]
        parts = [f"{first} {own:.4f}"]
        parts += [f"{name} {self.values[name][n]:.4f} ({own - self.values[name][n]:+.4f})" for name in others]
        return f"seed {self.rules.first_seed + n}: {', '.join(parts)}"

    def result(self, folder: Path) -> ComparisonResult:
        """Returns the result so far."""
        hashes = {one.name: one.config.hash for one in self.contenders}
        rules = self.rules
        return ComparisonResult(rules.metric, rules.mode, rules.first_seed, self.values, hashes, folder, self.seconds)


def _mode(contenders: Sequence[Contender], metric: str) -> str:
    known = metric_directions({"metrics": contenders[0].config.model_dump(mode="json").get("metrics", [])})
    if metric not in known:
        raise ConfigError(f"--metric: must be one of {', '.join(known)}, got {format_value(metric)}")
    return "max" if known[metric] else "min"


def _check_numbers(contenders: Sequence[Contender], seeds: int, first_seed: int, workers: int) -> None:
    fewest = fewest_pairs(LEVEL / 2)
    if not fewest <= seeds <= MOST_PAIRS:
        raise ConfigError(f"--seeds: must be from {fewest}, the minimum for a decision, to {MOST_PAIRS}, got {seeds}")
    if first_seed < 0:
        raise ConfigError(f"--first-seed: must be at least 0, got {first_seed}")
    if workers < 1:
        raise ConfigError(f"--workers: must be at least 1, got {workers}")
    if workers > 1 and contenders[0].config.teachers.networks:
        raise ConfigError(f"workers: must be 1 with teachers in memory (teachers.networks), got {workers}")
    names = [one.name for one in contenders]
    if len(set(names)) < len(names):
        raise ConfigError(f"compare: names must differ, got {', '.join(names)}")


def _write(result: ComparisonResult, contenders: Sequence[Contender]) -> None:
    """Writes result.json, the settings of each contender and the figure."""
    from ensdistill_tune.comparison.figure import write_figure  # imported here, because it is slow

    for n, one in enumerate(contenders, 1):
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(one.name).name)
        write_text(result.folder / f"{n}-{name.removesuffix('.yaml')}.yaml", to_yaml(one.config, one.name))
    write_figure(result)
    write_json(result.folder / "result.json", result.as_row())
