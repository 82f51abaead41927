"""Compares mixtures and strong augmentation with plain distillation; source of docs/benchmarks/inputs.md.

    python -m tests.benchmarks.changed_inputs                (cluttered digits, 10 seeds, 20 epochs; 25 minutes)
    python -m tests.benchmarks.changed_inputs --epochs 100   (longer training of all students)

All students learn from the same teachers for the same number of epochs, without labels (`kd` with `loss.alpha=1`). They
differ only in the training images given to teachers and student. Each seed determines the split, the teachers and the
student. The temperature is fitted on validation images. Nothing is selected, so the test images are evaluated once.

The intervals are 95 % confidence intervals of the mean difference from `kd` over the seeds: Student's t,
Bonferroni-corrected for the number of comparisons, followed by the uncorrected bootstrap in parentheses.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from statistics import fmean

from scipy.stats import bootstrap

from ensdistill import get_ensemble, load_config, load_data
from ensdistill.data import load_test
from ensdistill.evaluation.evaluator import Evaluator
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.runtime.randomness import deterministic
from ensdistill_tune.analysis.statistics import LEVEL, half_interval
from tests.benchmarks.all_presets import cell, one_preset

RECIPE = [  # the recipe of search_spaces/cluttered_digits.yaml, without labels
    "data.kind=cluttered_digits",
    "loss.alpha=1",
    "training={batch_size: 64, warmup_epochs: 5, max_grad_norm: 5}",
    "teachers.training={epochs: 20, batch_size: 64}",
]
STRONG = "training.augmentation={crop_scale: 0.5, rand_augment: 2, magnitude: 0.3, erasing: 0.25}"
STUDENTS: dict[str, list[str]] = {
    "kd": [],
    "pad and crop": ["training.augmentation={pad: 2}"],
    "mixup": ["perturbation.kind=mixup"],
    "cutmix": ["perturbation.kind=cutmix"],
    "strong": [STRONG],
    "strong and mixup": [STRONG, "perturbation.kind=mixup"],
}
COLUMNS = {"accuracy": 3, "nll": 3, "ece": 3, "cnll": 3, "dee": 2, "seconds": 1}


def one_seed(seed: int, students: list[str], epochs: int, store: str) -> dict[str, Metrics]:
    """Returns the test metrics of each student."""
    common = [*RECIPE, f"training.epochs={epochs}", f"seed={seed}", f"data.seed={seed}", f"teachers.seed={10 * seed}"]
    configs = {name: load_config("kd", [*common, *STUDENTS[name]]) for name in students}
    first = configs[students[0]]
    data, test = load_data(first.data), load_test(first.data)
    ensemble = get_ensemble(first, data, store)
    with deterministic(first.training.threads):
        evaluator = Evaluator(ensemble, data, test)
    rows = {name: one_preset(config, ensemble, data, test, evaluator) for name, config in configs.items()}
    print(f"seed {seed}  " + "  ".join(f"{name} {row['cnll']:.4f}" for name, row in rows.items()), flush=True)
    return rows


def difference(seeds: list[dict[str, Metrics]], name: str, among: int) -> str:
    """Returns the mean difference in calibrated NLL from `kd`, with both intervals and the number of wins."""
    apart = [rows[name]["cnll"] - rows["kd"]["cnll"] for rows in seeds]
    mean, half = fmean(apart), half_interval(apart, LEVEL / among)
    resampled = bootstrap((apart,), fmean, vectorized=False, n_resamples=10_000, method="percentile", rng=0)
    low, high = resampled.confidence_interval
    intervals = f"{mean - half:+.3f} to {mean + half:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"{mean:+.3f} | {intervals} | {sum(d < 0 for d in apart)} of {len(apart)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--store", default="studies/teachers", help="folder of the teachers")
    parser.add_argument("--rows", type=Path, help="JSON file for the metrics of all seeds")
    options = parser.parse_args()
    arguments = (options.students, options.epochs, options.store)
    with ProcessPoolExecutor(options.processes) as pool:
        seeds = list(pool.map(one_seed, range(options.seeds), *map(repeat, arguments)))
    if options.rows:
        options.rows.write_text(json.dumps(seeds))
    print("| | " + " | ".join(COLUMNS) + " | cNLL minus `kd`'s | 95 % interval | better |")
    print("|---" * (len(COLUMNS) + 4) + "|")
    for name in options.students:
        cells = [cell([rows[name][column] for rows in seeds], digits) for column, digits in COLUMNS.items()]
        apart = difference(seeds, name, len(options.students) - 1) if name != "kd" and "kd" in seeds[0] else "| |"
        print(f"| {name} | " + " | ".join(cells) + f" | {apart} |")


if __name__ == "__main__":
    main()
