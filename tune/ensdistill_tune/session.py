"""One study from beginning to end: teachers, search, confirmation, harvest; and again where it was interrupted."""

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ensdistill.config import content_hash
from ensdistill.errors import ConfigError, DataError
from ensdistill.evaluation.plausibility import teacher_warnings
from ensdistill.evaluation.tables import summarize_teachers, teacher_rows
from ensdistill.methods.recipe import fast_in_bfloat16
from ensdistill.pipeline import load_inputs, show_warnings, teacher_metrics
from ensdistill.runtime.command_line import STUDIES, Option, command_line
from ensdistill.runtime.files import write_json
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.settings.paths import without_files
from ensdistill.settings.validation import validate
from ensdistill_tune.analysis.labels import labeled
from ensdistill_tune.analysis.leaderboard import leaderboard, seeds_table
from ensdistill_tune.analysis.replication import Candidate, candidates, verdict
from ensdistill_tune.analysis.test_evaluation import (
    confirmation_metrics,
    diagnostics_on_validation,
    evaluate_on_test,
    write_confirmation,
)
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.artifacts import write_artifacts
from ensdistill_tune.console.live import live
from ensdistill_tune.execution.executor import Executor, Name
from ensdistill_tune.execution.memory import free_memory
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import (
    ReportWritten,
    SessionEnded,
    SessionStarted,
    TeachersReady,
    TestEvaluated,
    TrialEnded,
)
from ensdistill_tune.records.result_rows import TestMetrics
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS, rank_trials
from ensdistill_tune.study.loading import change_study
from ensdistill_tune.study.study_config import StudyConfig, study_files
from ensdistill_tune.study.study_state import StudyState
from ensdistill_tune.tracking.run_fields import address_of
from ensdistill_tune.tracking.target import MlflowTarget, check_uri, default_uri
from ensdistill_tune.tracking.tracker import MlflowTracker

UI_ADDRESS = "http://127.0.0.1:5000"
CHANGEABLE = ("budget", "confirmation", "resources", "tracking")  # settings of a study that may change when it goes on


@dataclass(frozen=True)
class StudyLocation:
    """Where a study works."""

    studies: Path  # the folder of all studies
    name: str
    device: str = "auto"  # where teachers are trained

    @property
    def home(self) -> Path:
        """The folder of this study."""
        return self.studies / self.name

    @property
    def uri(self) -> str:
        """The MLflow store of a study that exists, without credentials."""
        return validate(StudyConfig, self.folder.read_summary()["study"]).tracking.uri or default_uri(self.studies)

    @property
    def folder(self) -> StudyDirectory:
        """Its files."""
        return StudyDirectory(self.home)


def launch(study: StudyConfig, place: StudyLocation, console: Console, *, executor: Name = "ray") -> str:
    """Runs a study and returns how it ended: `finished`, `timed_out`, `interrupted`, or `failed` if no trial ran to

    its end. The folder of the study must be there and empty. Everything printed goes to the console.
    executor: `ray`, or `inline` to train teachers and trials in this process, one after the other.
    """
    try:
        study = resolve_precision(apply_warm_start(study, place.studies))
        header = {"name": place.name, "study_id": uuid.uuid4().hex, "study": study.model_dump(mode="json")}
        return StudySession(study, place, header, console, executor).run()
    except BaseException:
        if not place.folder.journal.exists():
            shutil.rmtree(place.home, ignore_errors=True)  # no trial has begun: the name stays free
        raise


def resume(
    place: StudyLocation,
    changes: Sequence[str],
    console: Console,
    *,
    reevaluate_test: bool = False,
    executor: Name = "ray",
) -> str:
    """Goes on with a study where it was interrupted, in whatever way; returns how it ended, as `launch` does.

    changes: `a.b=value` overrides, of those settings alone that leave the trials as they are: a study can be extended.
    reevaluate_test: look at the test images once more if other students than before have won by now.
    executor: as of `launch`; it need not be the one that began the study.
    """
    summary = place.folder.read_summary()
    if summary.get("counts") and not place.folder.journal.exists():
        raise DataError(
            f"{place.folder.journal}: is gone, or this study is of an earlier version; put it back or launch a new one"
        )
    before = validate(StudyConfig, summary["study"])
    study = change_study(before, changes)
    for name in StudyConfig.model_fields:
        if name not in CHANGEABLE and _decisive(study, name) != _decisive(before, name):
            raise ConfigError(
                f"--set {name}: would make the trials of {place.name} incomparable; what may change when a study goes "
                f"on is {', '.join(CHANGEABLE)}; for the rest launch a new one"
            )
    keep = ("name", "study_id", "study_hash", "data_hash", "ensemble_hash", "git_commit")
    header = {name: summary[name] for name in keep if name in summary}
    header |= {"study": study.model_dump(mode="json")}
    return StudySession(study, place, header, console, executor, summary, reevaluate_test).run()


def _executor(name: Name) -> Executor:
    """Returns an executor by its name. Imports Ray only if its executor is asked for."""
    if name == "inline":
        from ensdistill_tune.execution.inline_runner import INLINE

        return INLINE
    from ensdistill_tune.execution.ray_runner import RAY

    return RAY


def _decisive(study: StudyConfig, name: str) -> Any:
    """What decides the trials of a setting of a study: files that moved are the same files."""
    return without_files(study.model_dump(mode="json", include={name}), study_files())


def sync(place: StudyLocation) -> tuple[int, str | None, list[str]]:
    """Sends MLflow what it has not taken yet; how many events are left, why if there are any, and what it refused."""
    summary = place.folder.read_summary()
    with place.folder.held():
        progress = StudyState(validate(StudyConfig, summary["study"]), place.folder, summary, trial_warnings)
        tracker = _tracker(progress, place)
        tracker.start()
        return tracker.close(), tracker.trouble, tracker.refused


class StudySession:
    """One session of work at a study."""

    def __init__(
        self,
        study: StudyConfig,
        place: StudyLocation,
        header: dict[str, Any],
        console: Console,
        executor: Name,
        before: dict[str, Any] | None = None,
        reevaluate_test: bool = False,
    ) -> None:
        self.study, self.place, self.console, self.reevaluate_test = study, place, console, reevaluate_test
        self.executor = _executor(executor)
        self.folder, self.before = place.folder, before or {}  # what study.json says of a study that goes on
        self.begun = False  # whether trials were come to
        self.uri = study.tracking.uri or default_uri(place.studies)
        check_uri(self.uri)
        self.header = header | {"tracking_uri": self.uri}

    def run(self) -> str:
        with self.folder.held(), self._mark_running(), self.executor.session(self.study):
            self._prepare()
            self.progress = StudyState(self.study, self.folder, self.header, trial_warnings)
            self.tracker = _tracker(self.progress, self.place)
            self.progress.tell = self.tracker.on_event
            self.tracker.start()
            self.begun = True
            return self._run_phases()

    @contextlib.contextmanager
    def _mark_running(self) -> Iterator[None]:
        """study.json says that somebody is at work; if no trial is come to, it says again what it said before."""
        known = {"counts": {}, "best": None} | self.before | self.header
        self.folder.write_summary(known | {"state": "training_teachers", "total": self.study.num_trials})
        try:
            yield
        except BaseException:
            if self.before and not self.begun:
                self.folder.write_summary(self.before)
            raise

    def _prepare(self) -> None:
        """Data and teachers, the same as in earlier sessions."""
        config = self.study.base_config
        train = self.executor.teacher_trainer(self.study.resources, self.place.device)
        self.data, self.ensemble = load_inputs(
            config, str(self.place.studies), self.place.device, self.study.distinct_architectures, train
        )
        self.metrics = teacher_metrics(self.ensemble, self.data, config.training.threads)
        self.ensemble.cpu()  # until the final test the GPU is the trials'
        free_memory()
        self._check_same("data_hash", self.data.identity, "images")
        self._check_same("ensemble_hash", self.ensemble.identity, "teachers")
        self.teachers = teacher_rows(self.metrics)
        found = teacher_warnings(self.metrics, len(self.data.class_names))
        show_warnings(found)
        known = (*found, *self.ensemble.warnings, *self.data.warnings)
        self.header |= {
            "study_hash": content_hash(without_files(self.header["study"], study_files())),
            "data_hash": self.data.identity,
            "ensemble_hash": self.ensemble.identity,
            "device": "cuda" if self.study.resources.gpus else "cpu",
            "classes": len(self.data.class_names),
            "teachers": self.metrics,
            "warnings": [warning.as_row() for warning in known],
            "versions": versions(),
            "git_commit": git_commit(),
        }

    def _check_same(self, name: str, mine: str, what: str) -> None:
        if self.header.get(name, mine) != mine:
            raise DataError(
                f"{self.place.home}: the {what} are not those with which this study began ({self.header[name]}, now "
                f"{mine}), so its trials could not be compared; restore them or launch a new study"
            )

    def _run_phases(self) -> str:
        progress, files = self.progress, [Path("study.json")]
        progress.append_event(SessionStarted(versions=self.header["versions"]))
        if not any(isinstance(event, TeachersReady) for event in progress.past):
            names = ("study_hash", "data_hash", "ensemble_hash", "git_commit")
            hashes = {name: str(self.header[name]) for name in names if self.header[name]}
            known = summarize_teachers(self.metrics)
            rows = {"ensemble": known.ensemble, "teacher_mean": known.mean} if known else {}
            progress.append_event(TeachersReady.model_validate({**rows, "hashes": hashes}))
        progress.save("running")
        ended, confirmed, tested, diagnostics = "failed", list[Candidate](), list[TestMetrics](), None
        try:
            with live(self.console, progress) as listener:
                progress.listeners = [listener]
                ended = self.executor.run_trials(progress, self.data, self.ensemble, self.metrics["curve"])
                ended = "failed" if ended == "finished" and not progress.best else ended
                if ended == "finished":
                    confirmed = self._confirmed()
            files += write_artifacts(progress, self.teachers, confirmed)
            if confirmed:
                look = evaluate_on_test(
                    progress, confirmed, self.data, self.ensemble, reevaluate_test=self.reevaluate_test
                )
                tested, diagnostics = (look.results, look.diagnostics) if look else ([], None)
                earlier = (
                    [] if tested else [event.results for event in progress.past if isinstance(event, TestEvaluated)]
                )
                files.append(write_confirmation(self.place.home, self.study, confirmed, tested, earlier))
            if progress.best and (confirmed or not (self.place.home / "confirmation.json").exists()):
                diagnostics = diagnostics or diagnostics_on_validation(progress, confirmed, self.data, self.ensemble)
                write_json(self.place.home / "diagnostics.json", diagnostics.model_dump())
        except (KeyboardInterrupt, SystemExit):
            ended = "interrupted"
            raise
        except BaseException:
            ended = "failed"
            raise
        finally:
            self._finish(ended, confirmed, tested, files)
        self._print(ended, confirmed, tested)
        return ended

    def _confirmed(self) -> list[Candidate]:
        """The candidates, best first; the best repeat of the first is what ships."""
        progress, study = self.progress, self.study
        order = candidates(progress.primary_trials, progress.replicates, study)
        if order:
            progress.winner = order[0].best(study.objective, study.mode)
        return order

    def _finish(self, ended: str, confirmed: list[Candidate], tested: list[TestMetrics], files: list[Path]) -> None:
        progress, best = self.progress, self.progress.best
        for trial in progress.running:  # after an error of ours
            progress.append_event(TrialEnded(trial=trial.number, state="interrupted"))
        progress.save(ended)
        last = best.last if best and ended != "interrupted" else {}
        figures = {f"best/{name.removeprefix('val/')}": value for name, value in last.items() if "val/" in name}
        figures |= confirmation_metrics(confirmed[0]) if confirmed else {}
        report, lead = self._report(ended)
        by_trial = {c.trial.number: confirmation_metrics(c) for c in confirmed}
        before = [event for event in progress.past if isinstance(event, SessionEnded)]
        event = SessionEnded(  # figures that MLflow was sent when an earlier session ended are left out
            state=ended,
            metrics={} if figures in [event.metrics for event in before] else figures,
            confirmed={} if by_trial in [event.confirmed for event in before] else by_trial,
            best=best.number if best else None,
            note=lead,
            files=_within(self.place.home, [*files, *report]),
        )
        progress.append_event(event)
        self.left = self.tracker.close()

    def _report(self, ended: str) -> tuple[list[Path], str]:
        """The files of the report and its first lines; after an interrupt, when the user wants to be gone, no files."""
        try:
            if ended == "interrupted":
                from ensdistill_tune.analysis.results import read_facts
                from ensdistill_tune.report.document import first_lines

                return [], first_lines(read_facts(self.place.home), [], [])
            from ensdistill_tune.report.html import write_report  # here: a slow import

            return write_report(self.place.home)
        except Exception as error:  # what was trained is worth more than the page about it
            why = f"{type(error).__name__}: {error}"
            self.console.print(f"the report could not be made ({why}); `{self._command('report')}` tries again")
            return [], ""

    def _print(self, ended: str, confirmed: list[Candidate], tested: list[TestMetrics]) -> None:
        study, show = self.study, self.console.print
        show_warnings(self.progress.trial_warnings)
        show(leaderboard(study, self.progress.primary_trials, self.teachers))
        if confirmed:
            rows = {c.label: [replicate.last for replicate in c.replicates] for c in confirmed}
            title = f"confirmation (validation, {study.confirmation.seeds} fresh seeds)"
            show(seeds_table(title, rows, study.display_metrics, "trial"))
            show(f"verdict: {verdict(confirmed, study.objective, study.mode)}", soft_wrap=True)
        elif ended == "finished" and study.confirmation.top_k:
            show("nothing could be confirmed: of every candidate a repeat failed; the best is that of the search alone")
        if tested:
            looks = sum(isinstance(event, TestEvaluated) for event in read_journal(self.folder.journal))
            title = "test images, looked at once" if looks == 1 else f"test images, looked at {looks} times"
            on_test = labeled(tested, self.progress.primary_trials, len(self.ensemble))
            show(seeds_table(title, on_test, [n.split("/")[1] for n in METRICS], ""))
        elif confirmed:
            show(
                "the test images were looked at before, for other students: a second look would make them a second "
                f"validation set. `{self._command('resume')} --reevaluate-test` looks all the same",
                soft_wrap=True,
            )
        self._print_artifacts(ended)

    def _print_artifacts(self, ended: str) -> None:
        progress, home = self.progress, self.place.home
        summary = progress.summary(ended)
        states = ", ".join(f"{count} {state}" for state, count in sorted(summary["counts"].items()))
        first = {"interrupted": "INTERRUPTED: ", "timed_out": "out of time (budget.minutes): "}.get(ended, "")
        lines = [
            f"{first}{len(progress.primary_trials)} of {progress.num_trials} trials ({states}) in "
            f"{summary['seconds']:.0f} s"
        ]
        if progress.best:
            if self.study.secondary_objectives:
                lines.append(f"Pareto front:   {home / 'front'} (settings and student of each trial)")
            lines += [
                f"best settings:  {home / 'best' / 'config.yaml'}",
                f"best student:   {home / 'best' / STUDENT_FILE}",
            ]
        else:
            why = "" if ended in ("interrupted", "timed_out") else "; leaderboard.csv says why"
            lines.append(f"no trial has run to its end, so there is no best one{why}")
        lines.append(f"all trials:     {home / 'leaderboard.csv'}")
        if (home / "report.html").exists():
            lines.insert(1, f"what it means:  {home / 'report.html'}")
        if ended == "interrupted":
            lines.append(f"to go on:       {self._command('resume')}")
        if ended == "timed_out":
            minutes = ("--set", f"budget.minutes={2 * (self.study.budget.minutes or 0):g}")
            searched = sum(trial.kind == "search" for trial in progress.trials.values())
            lines.append(f"to go on:       {self._command('resume', minutes)}")
            trials = ("--set", f"budget.trials={searched}")
            lines.append(f"or to confirm:  {self._command('resume', minutes, trials)}")
        self.console.print("\n".join([*lines, *self._mlflow_hint()]), soft_wrap=True)

    def _mlflow_hint(self) -> list[str]:
        if self.left:
            why = self.tracker.trouble or "no answer"
            return [
                f"MLflow at {self.uri} has not taken {self.left} events yet ({why}); "
                f"nothing is lost: `{self._command('sync')}` sends them"
            ]
        if self.tracker.refused:
            return [f"MLflow refused {len(self.tracker.refused)} entries: {self.tracker.refused[0]}"]
        pages = self.tracker.pages
        if pages is None:
            return []
        if self.uri.startswith("http"):
            return [f"compare them:   {pages.comparison(address_of(self.uri))}"]
        elsewhere = self.study.tracking.uri or str(self.place.studies) != STUDIES
        ui = f"`{self._command('ui')}`" if elsewhere else "`make ui`"
        return [f"compare them:   {pages.comparison(UI_ADDRESS)}", f"                (after {ui})"]

    def _command(self, name: str, *options: Option) -> str:
        return command_line("ensdistill-tune", name, self.place.name, options=options, studies=self.place.studies)


def report(place: StudyLocation) -> tuple[list[Path], str, str | None]:
    """Makes the report of a study as it stands and stores it in MLflow's parent run.

    Returns the files, the first lines as Markdown, and why MLflow has none of it (None if it has).
    """
    from ensdistill_tune.report.html import write_report  # here: a slow import

    files, lead = write_report(place.home)
    try:
        with place.folder.held():
            summary = place.folder.read_summary()
            progress = StudyState(validate(StudyConfig, summary["study"]), place.folder, summary, trial_warnings)
            tracker = _tracker(progress, place)
            progress.tell = tracker.on_event
            tracker.start()
            progress.append_event(ReportWritten(files=_within(place.home, files), note=lead))
            return files, lead, tracker.trouble or "no answer" if tracker.close() else None
    except DataError as error:
        return files, lead, str(error)


def _within(home: Path, files: Sequence[Path]) -> list[str]:
    """Their names as seen from the folder of the study."""
    return [str(file.relative_to(home) if file.is_relative_to(home) else file) for file in files]


def _tracker(progress: StudyState, place: StudyLocation) -> MlflowTracker:
    where = MlflowTarget.of_study(progress.study, place.home, progress.header["study_id"])
    return MlflowTracker(where, progress.study, progress.past)


def apply_warm_start(study: StudyConfig, studies: Path) -> StudyConfig:
    """The study with the best settings of an earlier one among those to try first. Raises DataError if it has none."""
    if study.warm_start is None:
        return study
    folder = StudyDirectory(studies / study.warm_start.study)
    earlier = validate(StudyConfig, folder.read_summary()["study"])
    trials = rank_trials((t for t in folder.read_trials() if t.kind == "search"), earlier.objective, earlier.mode)
    unlike = list({trial.config_hash: trial.settings_at_last for trial in reversed(trials)}.values())[::-1]
    fitting = [
        {name: value for name, value in settings.items() if (a := study.search.get(name)) and a.contains(value)}
        for settings in unlike[: study.warm_start.top_k]
    ]
    if not any(fitting):
        raise DataError(
            f"warm_start.study {study.warm_start.study}: none of its trials has settings of this search space"
        )
    return study.model_copy(update={"points_to_evaluate": [*study.points_to_evaluate, *filter(None, fitting)]})


def resolve_precision(study: StudyConfig) -> StudyConfig:
    """The study with `precision: auto` decided once for all its trials; study.json then says what it became."""
    training = study.config.get("training", {})
    if training.get("precision") != "auto":
        return study
    fast = (
        study.resources.gpus and not torch.cuda.is_available()
    )  # the GPUs are elsewhere: all that torch still knows can
    fast = fast or fast_in_bfloat16(torch.device("cuda" if study.resources.gpus else "cpu"))
    config = {**study.config, "training": {**training, "precision": "bfloat16" if fast else "float32"}}
    return study.model_copy(update={"config": config})


def versions() -> dict[str, str]:
    """The packages that decide what comes out."""
    names = ("ensdistill", "torch", "ray", "optuna", "mlflow", "numpy", "scikit-learn")
    return {name: version(name) for name in names}


def git_commit() -> str | None:
    """The commit of the source tree, with `-dirty` if files were changed since; None if this is no source tree."""
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
