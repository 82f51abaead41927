"""One study from beginning to end: teachers, search, harvest."""

import subprocess
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from ensdistill.cli import load_everything, teacher_metrics
from ensdistill.config import content_hash
from ensdistill.data import Data
from ensdistill.members import Ensemble
from ensdistill.tables import Metrics, teacher_rows
from ensdistill.weights import STUDENT_FILE
from tune.board import leaderboard, live, seeds_table
from tune.confirm import Candidate, candidates, plan, verdict
from tune.final import Tested, confirmed_figures, final_test, write_confirmation
from tune.harvest import harvest
from tune.memory import release
from tune.placement import train_side_by_side
from tune.progress import Progress
from tune.record import StudyFolder, this_process
from tune.runner import cluster, run_repeats, run_trials
from tune.space import Study
from tune.tracking import Tracker, default_uri

UI_ADDRESS = "http://127.0.0.1:5000"


@dataclass(frozen=True)
class Place:
    """Where a study works."""

    studies: Path  # the folder of all studies
    name: str
    tracking_uri: str | None  # MLflow; None for the SQLite store in the folder of all studies
    device: str  # where teachers are trained

    @property
    def home(self) -> Path:
        """The folder of this study."""
        return self.studies / self.name


def launch(study: Study, place: Place, console: Console) -> str:
    """Runs a study and returns how it ended: `finished`, `interrupted`, or `failed` if no trial ran to its end.

    The folder of the study must be there and empty. Everything printed goes to the console.
    """
    with cluster(study):
        return _launch(study, place, console)


def _launch(study: Study, place: Place, console: Console) -> str:
    config, folder = study.fixed_config, StudyFolder(place.home)
    settings = study.model_dump(mode="json", exclude_none=True)
    uri = place.tracking_uri or default_uri(place.studies)
    tracker = Tracker(uri, place.name, place.studies / "artifacts")
    begun = {"name": place.name, "study": settings, "process": this_process(), "tracking_uri": uri}
    folder.write_summary(begun | {"state": "training teachers", "counts": {}, "total": study.total, "best": None})
    try:
        train = partial(train_side_by_side, given=study.trial, device=place.device)
        data, ensemble = load_everything(config, str(place.studies), place.device, study.specimens, train)
        metrics = teacher_metrics(ensemble, data, config.training.threads)
        ensemble.cpu()  # until the final test the GPU is the trials'
        release()
    except BaseException:
        folder.remove_summary()  # no trial has begun: the name stays free
        raise
    teachers = teacher_rows(metrics)
    header = begun | {
        "study_hash": content_hash(settings),
        "data_hash": data.identity,
        "ensemble_hash": ensemble.identity,
        "device": "cuda" if study.trial.gpu else "cpu",
        "teachers": metrics,
        "versions": versions(),
        "git_commit": git_commit(),
    }
    hashes = {name: str(header[name]) for name in ("study_hash", "data_hash", "ensemble_hash", "git_commit")}
    figures = {f"teachers/{who}_{name}": value for who, row in _short(teachers) for name, value in row.items()}
    tracker.start_study(study, figures, hashes)
    progress = Progress(study, folder, header | {"parent_run": tracker.parent})
    progress.save("running")
    ended, confirmed, tested = "failed", list[Candidate](), Tested()
    try:
        with live(console, progress) as board:
            progress.listeners = [tracker, board]
            ended = run_trials(progress, data, ensemble, metrics["curve"])
            ended = "failed" if ended == "finished" and not progress.best else ended
            if ended == "finished" and study.confirm.best:
                ended, confirmed = _confirm(progress, data, ensemble, metrics["curve"])
        files = harvest(progress, teachers)
        if confirmed:
            tested = final_test(study, confirmed, data, ensemble)
            files.append(write_confirmation(folder.path, study, confirmed, tested))
    except (KeyboardInterrupt, SystemExit):
        ended, files = "interrupted", []
        raise
    except BaseException:
        ended, files = "failed", []
        raise
    finally:
        progress.save(ended)
        best = progress.best
        last = best.last if best else {}
        final = {f"best/{name.removeprefix('val/')}": value for name, value in last.items() if "val/" in name}
        final |= confirmed_figures(confirmed) if tested else {}
        tracker.end_study(ended, final, {"best": best.name} if best else {}, [*files, place.home / "study.json"])
    console.print(leaderboard(study, progress.searched, teachers))
    if tested:
        rows = {c.label: [repeat.last for repeat in c.repeats] for c in confirmed}
        console.print(
            seeds_table(f"confirmation (validation, {study.confirm.seeds} fresh seeds)", rows, "trial", "val/")
        )
        console.print(f"verdict: {verdict(confirmed, study.objective, study.mode)}", soft_wrap=True)
        console.print(seeds_table("test images, looked at once", tested))
    _say_where(console, place, progress, tracker, ended)
    return ended


def _confirm(progress: Progress, data: Data, ensemble: Ensemble, curve: list[float]) -> tuple[str, list[Candidate]]:
    """Repeats the best trials and the baselines; how that ended, and the candidates if it came to its end."""
    study = progress.study
    progress.save("confirming")
    todo = plan(progress.searched, study.confirm, study.objective, study.mode, study.fixed_config.seed)
    ended = run_repeats(progress, todo, data, ensemble, curve)
    order = candidates(progress.searched, progress.repeats, study.objective, study.mode) if ended == "finished" else []
    if order:
        progress.winner = order[0].best(study.objective, study.mode)
    return ended, order


def _short(teachers: dict[str, Metrics]) -> list[tuple[str, Metrics]]:
    return list(zip(("ensemble", "one"), teachers.values(), strict=True))


def _say_where(console: Console, place: Place, progress: Progress, tracker: Tracker, ended: str) -> None:
    summary = progress.summary(ended)
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary["counts"].items()))
    first = {"interrupted": "INTERRUPTED: ", "out_of_time": "out of time (budget.minutes): "}.get(ended, "")
    lines = [f"{first}{len(progress.searched)} of {progress.total} trials ({states}) in {summary['seconds']:.0f} s"]
    if progress.best:
        lines += [
            f"best settings:  {place.home / 'best.yaml'}",
            f"best student:   {place.home / STUDENT_FILE}",
        ]
    else:
        lines.append("no trial ran to its end, so there is no best one; the lines above and leaderboard.csv say why")
    lines.append(f"all trials:     {place.home / 'leaderboard.csv'}")
    if tracker.trouble is None and tracker.uri.startswith("http"):
        lines.append(f"compare them:   {tracker.link(tracker.uri.rstrip('/'))}")
    elif tracker.trouble is None:
        where = f" --tracking-uri {place.tracking_uri}" if place.tracking_uri else ""
        where += f" --studies {place.studies}" if str(place.studies) != "studies" else ""
        lines.append(f"compare them:   {tracker.link(UI_ADDRESS)}")
        lines.append(f"                (after {'`ensdistill-tune ui' + where + '`' if where else '`make ui`'})")
    else:
        lines.append(f"MLflow failed on the way, so its runs are incomplete; nothing else is: {tracker.trouble}")
    console.print("\n".join(lines), soft_wrap=True)


def versions() -> dict[str, str]:
    """The packages that decide what comes out."""
    names = ("ensdistill", "torch", "ray", "optuna", "mlflow", "numpy", "scikit-learn")
    return {name: version(name) for name in names}


def git_commit() -> str | None:
    """The commit of the source tree, with `-dirty` if files were changed since; None if this is no source tree."""
    root = Path(__file__).parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
