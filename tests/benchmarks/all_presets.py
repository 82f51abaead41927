"""Compares all presets on test images, with the same teachers, over several seeds; source of the table in the README.

    python tests/benchmarks/all_presets.py              (cluttered digits, 5 seeds; at most 16 minutes on two cores)
    python tests/benchmarks/all_presets.py --seeds 1 --set ... (other data: any settings of `ensdistill distill`)

Each seed determines the split, the teachers and the student. Temperatures are fitted on validation images. Nothing is
selected, so the test images are evaluated once. `cost` is the cost of a prediction, in multiply-adds relative to one
plain network. `p` is the p-value of a t-test, paired by seed, that compares the NLL of a preset with the NLL of `kd`.
It is Holm-corrected for the number of presets and requires at least two seeds.
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from scipy.stats import ttest_rel

from ensdistill import distill, get_ensemble, load_config, load_data
from ensdistill.config import Config
from ensdistill.data import DataSplits, Split, load_test
from ensdistill.evaluation.evaluator import Evaluator
from ensdistill.evaluation.metric_values import Metrics, mean_metrics
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.randomness import deterministic

PRESETS = ("labels", "kd", "aver", "diversity", "latentbe", "ekd", "unikd", "aekd", "hydra", "end2", "proxy_end2")
PRESETS += ("wttm", "dist", "camkd")
RECIPE = "epochs: 20, batch_size: 64"
CLUTTERED_DIGITS = [
    "data={kind: cluttered_digits, unlabeled_size: 1000}",  # only unikd uses unlabeled images
    f"training={{{RECIPE}, warmup_epochs: 5, max_grad_norm: 5}}",  # as in search_spaces/cluttered_digits.yaml
    f"teachers.training={{{RECIPE}}}",
]


def one_seed(seed: int, presets: list[str], overrides: list[str], device: str, store: str) -> dict[str, Metrics]:
    """Returns one row of metrics for the ensemble, for one teacher, and for each preset."""
    disable_malloc_trim()
    seeds = [f"seed={seed}", f"data.seed={seed}", f"teachers.seed={10 * seed}"]
    configs = {preset: load_config(preset, [*overrides, *seeds]) for preset in presets}
    first = configs[presets[0]]
    data, test = load_data(first.data).to(device), load_test(first.data).to(device)
    ensemble = get_ensemble(first, data, store)
    with deterministic(first.training.threads):
        examiner = Evaluator(ensemble, data, test)
        teachers = examiner.teachers()
        rows = {"ensemble": teachers["ensemble"], "one teacher": mean_metrics(teachers["members"])}
        flops = examiner.student(ensemble.networks[0])["flops"]
    rows = {name: {**row, "cost": cost} for (name, row), cost in zip(rows.items(), (len(ensemble), 1), strict=True)}
    for preset, config in configs.items():
        rows[preset] = one_preset(config, ensemble, data, test, examiner)
        rows[preset]["cost"] = rows[preset]["flops"] / flops
        print(f"seed {seed}  {preset:12s} test NLL {rows[preset]['nll']:.4f}", flush=True)
    return rows


def one_preset(
    config: Config, ensemble: TeacherEnsemble, data: DataSplits, test: Split, examiner: Evaluator
) -> Metrics:
    """Returns the metrics of one student, including its training time in seconds."""
    start = time.perf_counter()
    run = distill(config, ensemble, data)
    list(run)
    seconds = time.perf_counter() - start
    with deterministic(config.training.threads):
        return examiner.student(run.student()) | {"seconds": seconds}


def cell(values: list[float], digits: int) -> str:
    spread = f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def compare(seeds: list[dict[str, Metrics]], presets: list[str], reference: str) -> dict[str, float]:
    """Returns Holm-corrected p-values of t-tests, paired by seed, of the NLL of each preset against the reference."""
    against = [rows[reference]["nll"] for rows in seeds]
    others = [preset for preset in presets if preset != reference]
    raw = {name: float(ttest_rel([rows[name]["nll"] for rows in seeds], against).pvalue) for name in others}
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(others, key=raw.__getitem__)):
        largest = corrected[name] = max(largest, min(1.0, (len(others) - rank) * raw[name]))
    return corrected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--set", action="append", default=[], help="settings instead of those for cluttered digits")
    parser.add_argument("--also", action="append", default=[], help="additional settings")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--store", default="studies/teachers", help="folder of the teachers")
    options = parser.parse_args()
    overrides = [*(options.set or CLUTTERED_DIGITS), *options.also]
    arguments = (options.presets, overrides, options.device, str(Path(options.store)))
    with ProcessPoolExecutor(options.processes) as pool:
        seeds = list(pool.map(one_seed, range(options.seeds), *map(repeat, arguments)))
    for rows in seeds:
        for row in rows.values():
            if "kd" in rows:
                row["nll - kd"] = row["nll"] - rows["kd"]["nll"]  # trained together: same split, same teachers
    p_values = compare(seeds, options.presets, "kd") if len(seeds) > 1 and "kd" in seeds[0] else {}
    columns = {"accuracy": 3, "nll": 3, "nll - kd": 3, "ece": 3, "cnll": 3, "dee": 2, "cost": 1, "seconds": 1}
    print("| | " + " | ".join([*columns, "p"]) + " |\n" + "|---" * (len(columns) + 2) + "|")
    for name in seeds[0]:
        cells = [cell([rows[name][c] for rows in seeds], d) if c in seeds[0][name] else "" for c, d in columns.items()]
        cells.append(f"{p_values[name]:.4f}" if name in p_values else "")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
