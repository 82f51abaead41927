"""Result files of a study: the leaderboard, the best settings in YAML format, and the best student."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ensdistill.config import to_yaml
from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.files import atomic_write, write_text
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill_tune.analysis.leaderboard import format_metric, leaderboard_csv, pareto_front
from ensdistill_tune.analysis.replication import Candidate, candidates_on_the_front
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_state import StudyState


def write_artifacts(
    progress: StudyState, teachers: Mapping[str, Mapping[str, float]], confirmed: Sequence[Candidate]
) -> list[Path]:
    """Writes leaderboard.csv and, if a trial has completed, the settings and student of the best trial to `best/`.

    With several objectives, `pareto/<trial>/` contains the settings and the student of each trial on the Pareto front.

    Args:
        progress: State of the study.
        teachers: Metrics of the ensemble and mean metrics of the individual teachers, keyed by label.
        confirmed: The confirmed candidates, best first; empty if there was no confirmation.

    Returns:
        The paths of the files, except those in `pareto/`.
    """
    home, study = progress.folder.path, progress.study
    write_text(home / "leaderboard.csv", leaderboard_csv(study, progress.primary_trials, teachers))
    files = [home / "leaderboard.csv"]
    if not confirmed and (home / "confirmation.json").exists():
        return files  # while a study is extended, keeps the confirmed student until the next confirmation
    best = progress.best
    if best is None:
        shutil.rmtree(home / "best", ignore_errors=True)  # no student meets the current constraints
    else:
        files += _copy_student(progress, best, home / "best" / "config.yaml")
    shutil.rmtree(home / "pareto", ignore_errors=True)
    for trial, shipped in front(progress, confirmed):
        _copy_student(progress, shipped, home / "pareto" / f"{trial.number:03d}" / "config.yaml")
    return files


def front(progress: StudyState, confirmed: Sequence[Candidate]) -> list[tuple[TrialRecord, TrialRecord]]:
    """Returns the trials on the Pareto front, each with the trial whose student is exported.

    Args:
        progress: State of the study.
        confirmed: The confirmed candidates, which are compared by their means; if empty, all trials are compared.
    """
    study = progress.study
    if not confirmed:
        order = study.rank(progress.primary_trials)
        return [(trial, trial) for trial in pareto_front(order, study)]
    on_it = candidates_on_the_front(confirmed, study)
    return [(candidate.trial, candidate.best(study)) for candidate in on_it]


def _copy_student(progress: StudyState, trial: TrialRecord, settings: Path) -> list[Path]:
    """Writes the settings and the student of a trial to one folder."""
    write_text(settings, _as_yaml(progress, trial, settings))
    student = progress.folder.trial(trial.number) / STUDENT_FILE
    atomic_write(settings.parent / STUDENT_FILE, lambda temporary: shutil.copyfile(student, temporary))
    return [settings, settings.parent / STUDENT_FILE]


def _as_yaml(progress: StudyState, trial: TrialRecord, file: Path) -> str:
    """Returns the settings of a trial as YAML, which `ensdistill distill` accepts unchanged."""
    config = progress.study.config_for(trial)
    home = progress.folder.path
    device = ("--device", "cuda" if progress.study.resources.gpus else "cpu")
    again = command_line("ensdistill", "distill", file, options=[device], studies=home.parent)
    test = command_line("ensdistill", "evaluate", file, options=[("--split", "test")], studies=home.parent)
    names = [name for name in progress.study.display_metrics if name in trial.last]
    metrics = ", ".join(f"{name.split('/')[1]} {format_metric(name, trial.last[name])}" for name in names)
    which = "Best" if file.parent.name == "best" else "On the Pareto front"
    return to_yaml(
        config,
        f"{which} of study {home.name}: trial {trial.name}\n"
        f"Validation: {metrics}\n"
        f"Run it again:   {again}\n"
        f"Test it, once:  {test}\n"
        f"Config hash {config.hash}",
    )


def names_within(home: Path, files: Sequence[Path]) -> list[str]:
    """Returns the paths of files as strings; paths inside the folder of the study are relative to that folder.

    Args:
        home: The folder of the study.
        files: The files.
    """
    return [str(file.relative_to(home) if file.is_relative_to(home) else file) for file in files]
