"""Measures how much sooner than random search a searcher with a scheduler reaches the final best of random search.

    python -m tests.benchmarks.search_speed                       (40 seeds; about 6 minutes on one core)
    python -m tests.benchmarks.search_speed --first 100           (other seeds, for choosing defaults)

Random search trains all its trials to the end. Every other method may train the same total number of epochs. The
measurement is the number of epochs trained by all trials together until a completed trial is as good as the best of
random search. A method that does not reach this value is counted with all its epochs. Learning curves are predicted
from real trainings (curves_model.py). Everything else is the code of a study: planner, searcher, scheduler and two
slots.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState
from tests.benchmarks.curves_model import Curves
from tests.benchmarks.digits_curves import study_of

SLOTS = 2
INDEPENDENT = 1_000_000  # added to the seed; otherwise, the first trials would be those of random search
NONE: dict[str, Any] = {"kind": "none"}
ASHA: dict[str, Any] = {"kind": "asha"}
WHO: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # searcher and scheduler, as in search space files
    "tpe + asha": ({"kind": "tpe"}, ASHA),
    "tpe": ({"kind": "tpe"}, NONE),
    "random + asha": ({"kind": "random"}, ASHA),
    "random again": ({"kind": "random"}, NONE),
    "tpe + hyperband": ({"kind": "tpe"}, {"kind": "hyperband"}),
    "tpe + median": ({"kind": "tpe"}, {"kind": "median"}),
    "gp + asha": ({"kind": "gp"}, ASHA),
    "qmc + asha": ({"kind": "qmc"}, ASHA),
    "nsga2 + asha": ({"kind": "nsga2"}, ASHA),
}
Story = list[tuple[int, float]]  # epochs of all trials so far, and the final value of a trial that has just ended


def search(study: StudyConfig, curves: Curves, enough: float = float("-inf")) -> Story:
    """Runs one search with parallel trials, one epoch each in turn; stops once a trial is good enough."""
    story: Story = []
    with tempfile.TemporaryDirectory() as home:
        progress = StudyState(study, StudyDirectory(Path(home)), {}, trial_warnings)
        agenda, running, trained = TrialPlanner(progress, SLOTS), dict[int, Any](), 0
        while not agenda.done:
            while isinstance(suggestion := agenda.next(), dict):
                running[suggestion["number"]] = curves(suggestion["sampled"])
            for number, curve in list(running.items()):
                epoch = len(progress.trials[number].epochs) + 1
                trained += 1
                metrics = {"epoch": epoch, "epochs": curves.epochs} | dict.fromkeys(METRICS, float(curve[epoch - 1]))
                decision = agenda.report(number, metrics)
                if decision is Decision.CONTINUE and epoch < curves.epochs:
                    continue
                del running[number]
                agenda.end(number, "finished" if epoch == curves.epochs else "pruned")
                if epoch == curves.epochs:
                    story.append((trained, metrics["val/nll"]))
                    if story[-1][1] <= enough:
                        return story
    return story


def study_with(searcher: Mapping[str, Any], scheduler: Mapping[str, Any], trials: int, epochs: int) -> StudyConfig:
    """Returns the shipped study with only the search phase and the epoch budget of the given number of full trials."""
    study = study_of()
    budget = {"trials": trials * epochs, "epochs": trials * epochs}
    changed = {
        "searcher": searcher,
        "scheduler": scheduler,
        "budget": budget,
        "confirmation": {"top_k": 0},
        "baselines": [],
    }
    return StudyConfig.model_validate(study.model_dump(mode="json") | changed)


def ratio(who: str, curves: Curves, trials: int, seed: int, target: float) -> float:
    """Returns the epochs until the target is reached divided by the epochs of random search; 1 if it is not reached."""
    searcher, scheduler = WHO[who]
    study = study_with({**searcher, "seed": seed + INDEPENDENT}, scheduler, trials, curves.epochs)
    trained, value = search(study, curves, target)[-1]
    return trained / (trials * curves.epochs) if value <= target else 1.0


def measure(who: list[str], trials: int, seeds: range) -> dict[str, Any]:
    """Returns the ratios of all methods by seed, and properties of the curves."""
    curves = Curves(study_of())
    targets = {}
    for seed in seeds:
        story = search(study_with({"kind": "random", "seed": seed}, NONE, trials, curves.epochs), curves)
        targets[seed] = min(value for _, value in story)
    return {
        "trials": trials,
        "targets": list(targets.values()),
        "ratios": {name: [ratio(name, curves, trials, s, t) for s, t in targets.items()] for name in who},
        "trainings": len(curves.real),
        "all, sd of log NLL": curves.spread,
        "held-out rank correlation of the model": curves.held_out_correlation(),
        "rank correlation with the last epoch": {e: curves.foresight(e) for e in (5, 10, 15, 20, 30, 45)},
        "luck, sd of log NLL": float(curves.residuals[:, -1].std()),
    }


def table_of(figures: dict[str, Any]) -> Table:
    """Returns a table with one row per method."""
    title = (
        f"epochs to random search's best of {figures['trials']} trials / its epochs (target for tpe + asha: <= 0.35)"
    )
    table = Table("who", "mean", "median", "sd", "from", "to", "not reached", title=title)
    for name, values in figures["ratios"].items():
        mean, median, spread = statistics.mean(values), statistics.median(values), statistics.pstdev(values)
        shares = [f"{value:.2f}" for value in (mean, median, spread, min(values), max(values))]
        table.add_row(name, *shares, f"{sum(value == 1.0 for value in values)} of {len(values)}")
    return table


def main() -> None:
    """Measures and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--who", nargs="+", default=list(WHO)[:4], choices=list(WHO))
    parser.add_argument("--trials", type=int, default=60, help="of random search")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path, help="where the figures are written too")
    options = parser.parse_args()
    figures = measure(options.who, options.trials, range(options.first, options.first + options.seeds))
    console = Console()
    console.print(table_of(figures))
    console.print({name: value for name, value in figures.items() if name not in ("ratios", "targets")})
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
