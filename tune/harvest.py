"""What a study leaves behind: the leaderboard, the best settings as YAML, and the best student."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from ensdistill.config import to_yaml
from ensdistill.files import write_text, write_whole
from ensdistill.weights import STUDENT_FILE
from tune.board import leaderboard_csv
from tune.progress import Progress
from tune.record import METRICS, TrialRecord


def harvest(progress: Progress, teachers: Mapping[str, Mapping[str, float]]) -> list[Path]:
    """Writes leaderboard.csv and, if a trial ran to its end, best.yaml and student.safetensors. Returns the files."""
    home, study = progress.folder.path, progress.study
    trials = progress.searched
    write_text(home / "leaderboard.csv", leaderboard_csv(study, trials, teachers))
    files = [home / "leaderboard.csv"]
    best = progress.best
    if best is not None:
        write_text(home / "best.yaml", best_yaml(progress, best))
        student = progress.folder.trial(best.number) / STUDENT_FILE
        write_whole(home / STUDENT_FILE, lambda temporary: shutil.copyfile(student, temporary))
        files += [home / "best.yaml", home / STUDENT_FILE]
    return files


def best_yaml(progress: Progress, best: TrialRecord) -> str:
    """The settings of the best trial as a file that `ensdistill distill` runs as it is."""
    config = progress.study.config_of(best.baseline, best.sampled, best.seed)
    home = progress.folder.path
    where = f" --studies {home.parent}" if str(home.parent) != "studies" else ""
    device = "cuda" if progress.study.trial.gpu else "cpu"
    metrics = ", ".join(f"{name.removeprefix('val/')} {best.last[name]:.4f}" for name in METRICS)
    return to_yaml(
        config,
        f"Best of study {home.name}: trial {best.name}\n"
        f"Validation: {metrics}\n"
        f"Run it again:   ensdistill distill {home / 'best.yaml'} --device {device}{where}\n"
        f"Test it, once:  ensdistill evaluate {home / 'best.yaml'} --split test{where}\n"
        f"Config hash {config.hash}",
    )
