"""All presets on the same teachers, over several seeds, on test images: the measurement behind the README's table.

    python tests/benchmarks/all_presets.py              (cluttered digits, 5 seeds; about 6 minutes on two cores)
    python tests/benchmarks/all_presets.py --seeds 1 --set ... (other data: any settings of `ensdistill distill`)

A seed is that of split, teachers and student together. Temperatures are fitted on validation; nothing is chosen, so the
test images are looked at once. `cost` is that of a prediction, in multiplications and additions of one plain network.
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from ensdistill import distill, get_ensemble, load_config, load_data
from ensdistill.config import Config
from ensdistill.data import DataSplits, Split, load_test
from ensdistill.evaluation.evaluator import Evaluator, Metrics, mean_metrics
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.randomness import deterministic

PRESETS = ("labels", "kd", "aver", "diversity", "latentbe", "ekd", "unikd", "aekd", "hydra", "end2", "proxy_end2")
RECIPE = "epochs: 20, batch_size: 64"
CLUTTERED_DIGITS = [
    "data={kind: cluttered_digits, unlabeled_size: 1000}",  # only unikd uses the unlabeled images
    f"training={{{RECIPE}, warmup_epochs: 5, max_grad_norm: 5}}",  # as in search_spaces/cluttered_digits.yaml
    f"teachers.training={{{RECIPE}}}",
]


def one_seed(seed: int, presets: list[str], overrides: list[str], device: str, store: str) -> dict[str, Metrics]:
    """A row for the ensemble, for one teacher, and for each preset."""
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
    """The row of one student, with the seconds of its training."""
    start = time.perf_counter()
    run = distill(config, ensemble, data)
    list(run)
    seconds = time.perf_counter() - start
    with deterministic(config.training.threads):
        return examiner.student(run.student()) | {"seconds": seconds}


def cell(values: list[float], digits: int) -> str:
    spread = f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--set", action="append", default=[], help="settings instead of those for cluttered digits")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--store", default="studies/teachers", help="where teachers are kept")
    options = parser.parse_args()
    arguments = (options.presets, options.set or CLUTTERED_DIGITS, options.device, str(Path(options.store)))
    with ProcessPoolExecutor(options.processes) as pool:
        seeds = list(pool.map(one_seed, range(options.seeds), *map(repeat, arguments)))
    for rows in seeds:
        for row in rows.values():
            if "kd" in rows:
                row["nll - kd"] = row["nll"] - rows["kd"]["nll"]  # side by side: same split, same teachers
    columns = {"accuracy": 3, "nll": 3, "nll - kd": 3, "ece": 3, "cnll": 3, "dee": 2, "cost": 1, "seconds": 1}
    print("| | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for name in seeds[0]:
        cells = [cell([rows[name][c] for rows in seeds], d) if c in seeds[0][name] else "" for c, d in columns.items()]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
