"""Compares four teachers with one for different numbers of `digits` images; source of the default split.

    python tests/benchmarks/split_choice.py            (about 2 minutes on one core)

Each seed determines the split, the teachers and the student. For each number of training images, the table shows means
over 5 seeds: the validation NLL of the ensemble and of a member, their ratio, and the validation NLL of one student per
preset.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from ensdistill import Config, TeacherEnsemble, distill, evaluate, get_ensemble, load_config, load_data
from ensdistill.data import DataSplits

SEEDS = 5


def student_nll(config: Config, ensemble: TeacherEnsemble, data: DataSplits) -> float:
    *_, last = distill(config, ensemble, data)
    return last.val["nll"]


def measure(size: int, seed: int, store: Path, extra: list[str]) -> dict[str, float]:
    overrides = [f"data.train_size={size}", f"data.seed={seed}", f"teachers.seed={10 * seed}", f"seed={seed}", *extra]
    configs = {preset: load_config(preset, overrides) for preset in ("kd", "latentbe")}
    data = load_data(configs["kd"].data)
    ensemble = get_ensemble(configs["kd"], data, store)
    together = evaluate(ensemble, data.validation)["nll"]
    alone = statistics.mean(evaluate(network, data.validation)["nll"] for network in ensemble.networks)
    students = {preset: student_nll(config, ensemble, data) for preset, config in configs.items()}
    return {"ensemble": together, "one teacher": alone, "ratio": together / alone, **students}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 150, 200])
    parser.add_argument("--set", action="append", default=[], help="further overrides of the settings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        for size in arguments.sizes:
            rows = [measure(size, seed, Path(store), arguments.set) for seed in range(SEEDS)]
            for what in rows[0]:
                values = [row[what] for row in rows]
                spread = f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f} (n={SEEDS})"
                print(f"{size:4d} images  {what:12s} {spread}  {min(values):.3f} to {max(values):.3f}", flush=True)


if __name__ == "__main__":
    main()
