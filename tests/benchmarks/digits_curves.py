"""Trains students at Sobol points of digits_curves.yaml; search_speed.py searches their learning curves.

    python -m tests.benchmarks.digits_curves --points 200        (about 15 minutes on one core)

Each line of digits_curves.csv is one training: index in the Sobol sequence, seed, settings, and `val/nll` after each
epoch. Every fifth point is trained with three seeds to measure the random variation. Trainings that are already in the
file are not repeated.
"""

import argparse
import contextlib
import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ensdistill import distill, get_ensemble, load_data
from ensdistill.errors import DivergedError
from ensdistill.training.teacher_logits import TeacherLogitCache
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import StudyConfig

FILE = Path(__file__).with_suffix(".csv")
SPACE = Path(__file__).with_suffix(".yaml")
GUESSING = math.log(10)  # value for a student that diverged, and upper limit of reported values
REPEATED, SEEDS = 5, 3  # every REPEATED-th point is trained with SEEDS seeds


def study_of(*overrides: str) -> StudyConfig:
    """Returns the study that defines these trials."""
    return load_study(SPACE, overrides)


def plan_replicates(study: StudyConfig, points: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yields the point index, seed and settings of every training."""
    for place in range(points):
        sampled = study.searcher.fixed_values(study.space, place)
        if sampled is None:
            return
        for seed in range(1 if place % REPEATED else SEEDS):
            yield place, seed, sampled


def main() -> None:
    """Runs the trainings that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--store", type=Path, default=Path("studies/teachers"), help="where teachers are kept")
    options = parser.parse_args()
    study = study_of("searcher.kind=qmc")
    names = ["place", "seed", *study.space.order, *(str(epoch) for epoch in range(1, study.epochs + 1))]
    known = {(row["place"], row["seed"]) for row in csv.DictReader(FILE.open())} if FILE.exists() else set()
    data = load_data(study.base_config.data)
    ensemble = get_ensemble(study.base_config, data, options.store)
    cache = TeacherLogitCache(ensemble)
    with FILE.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        if not known:
            writer.writeheader()
        for place, seed, sampled in plan_replicates(study, options.points):
            if (str(place), str(seed)) not in known:
                values = dict.fromkeys(map(str, range(1, study.epochs + 1)), f"{GUESSING:.4g}")
                with contextlib.suppress(DivergedError):
                    config = study.trial_config({**sampled, "seed": seed})
                    for epoch in distill(config, ensemble, data, cache=cache):
                        values[str(epoch.number)] = f"{min(epoch.val['nll'], GUESSING):.4g}"
                settings = {name: f"{v:.4g}" if isinstance(v, float) else v for name, v in sampled.items()}
                writer.writerow({"place": place, "seed": seed, **settings, **values})
                file.flush()


if __name__ == "__main__":
    main()
