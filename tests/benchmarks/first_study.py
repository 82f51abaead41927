"""Runs the study of `make study` with several seeds, to measure whether it finds a better student than the baselines.

    python tests/benchmarks/first_study.py --seeds 0 1 2 3 4         (about 6 minutes per seed on two idle cores)

A study seed determines the images, the teachers, the students and the searcher. The study file was developed with seeds
of at least 100; seeds 0 to 4 were then run once. A study that already exists in the folder is read and not run again.

The first columns show whether the winner is better than the best baseline, the number of seeds in which it is better,
and the difference in the objective on validation images, with an interval that is corrected for the number of
candidates. The next columns are means over the confirmation seeds on the test images: the NLL of `kd`, `latentbe`, the
winner and the ensemble; the fraction of the gap between `kd` and the ensemble that the winner closes; and the
deep-ensemble equivalent of the winner. The last columns are Kendall's tau at the first rung, and the duration in
seconds.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

from ensdistill.evaluation.tables import markdown_table
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.analysis.verdict import verdict

FILE = Path("search_spaces/cluttered_digits.yaml")
COLUMNS = ["seed", "better", "wins", "difference", "corrected interval", "kd", "latentbe", "winner", "ensemble"]
COLUMNS += ["gap closed", "DEE", "rank correlation", "seconds"]


def settings_of(seed: int) -> list[str]:
    """Returns the overrides for one study seed; seed 0 is the unchanged file."""
    return [
        f"searcher.seed={seed}",
        f"config.seed={1000 * seed}",
        f"config.data.seed={seed}",
        f"config.teachers.seed={100 * seed}",
    ]


def run(seed: int, studies: Path) -> StudyResults:
    """Runs the study of a seed unless it exists, and reads its files."""
    home = studies / f"seed-{seed}"
    if not (home / "confirmation.json").exists():
        words = [word for setting in settings_of(seed) for word in ("--set", setting)]
        command = [sys.executable, "-m", "ensdistill_tune", "launch", str(FILE), "--studies-dir", str(studies)]
        environment = os.environ | {"COLUMNS": "150"}
        with (studies / f"seed-{seed}.txt").open("w") as out:
            subprocess.run([*command, "--name", home.name, *words], stdout=out, check=True, env=environment)
    return read_facts(home)


def row_of(seed: int, facts: StudyResults) -> dict[str, str]:
    """Returns the table row of one study."""
    winner, found = facts.confirmed[0], verdict(facts.confirmed, facts.study)
    row = {"seed": str(seed), "better": "no", "winner": f"{_test(facts, winner)['nll']:.3f}"}
    if c := found.comparison:
        row["better"] = "yes" if found.better else "not significant"
        row |= {"wins": f"{c.wins} of {len(c.differences)}", "difference": f"{c.difference:+.3f}"}
        row["corrected interval"] = f"{c.interval[0]:+.3f} to {c.interval[1]:+.3f}"
    tests = {c.trial.baseline: _test(facts, c)["nll"] for c in facts.confirmed if c.trial.baseline}
    ensemble = next(t.metrics[0]["nll"] for t in facts.tested if t.kind == "ensemble")
    gap = (tests["kd"] - _test(facts, winner)["nll"]) / (tests["kd"] - ensemble)
    row |= {name: f"{nll:.3f}" for name, nll in tests.items()} | {"ensemble": f"{ensemble:.3f}"}
    row |= {"gap closed": f"{gap:.2f}", "DEE": f"{_test(facts, winner)['dee']:.2f}"}
    for first_rung in facts.rank_correlations[:1]:
        row["rank correlation"] = f"{first_rung.tau:.2f} (epoch {first_rung.epoch})"
    return row | {"seconds": f"{facts.summary['seconds']:.0f}"}


def _test(facts: StudyResults, candidate: Candidate) -> dict[str, float]:
    """Returns the test metrics of a candidate, averaged over its seeds."""
    seeds = next(t.metrics for t in facts.tested if t.trial == candidate.trial.number)
    return {name: fmean(one[name] for one in seeds) for name in ("nll", "dee")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--studies-dir", type=Path, default=Path("studies/first_study"))
    options = parser.parse_args()
    options.studies_dir.mkdir(parents=True, exist_ok=True)
    rows = [row_of(seed, run(seed, options.studies_dir)) for seed in options.seeds]
    print(markdown_table(COLUMNS, [[row.get(name, "") for name in COLUMNS] for row in rows]))


if __name__ == "__main__":
    main()
