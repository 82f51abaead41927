"""What can be done with a study: launch, resume, read its results, send it to MLflow, write its report."""

import contextlib
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ensdistill.errors import ConfigError, DataError, format_value
from ensdistill.export.exporter import ExportResult
from ensdistill.export.format_names import FORMATS
from ensdistill.runtime.files import ensure_writable_dir
from ensdistill.runtime.progress_bar import console, silence
from ensdistill.runtime.text import counted
from ensdistill.settings.paths import without_files
from ensdistill.settings.validation import validate
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.callbacks import CallbackObserver
from ensdistill_tune.execution.environment import configured
from ensdistill_tune.execution.executor import NAMES, Name, signals_restored
from ensdistill_tune.phases import names_within
from ensdistill_tune.records.events import ReportWritten
from ensdistill_tune.session import StudySession, open_study
from ensdistill_tune.study.claim import claim
from ensdistill_tune.study.loading import Overrides, change_study, checked, origin_of
from ensdistill_tune.study.preparation import apply_warm_start, resolve_precision
from ensdistill_tune.study.study_config import StudyConfig, study_files
from ensdistill_tune.study.study_location import StudyLocation
from ensdistill_tune.tracking.target import store_of

CHANGEABLE = ("budget", "confirmation", "constraints", "resources", "tracking")  # when a study is resumed
KEPT = ("name", "study_id", "study_hash", "data_hash", "ensemble_hash", "plugins", "git_commit")  # in study.json

ProgressDisplay = Literal["auto", "off"] | Console
_at_work = threading.Lock()  # torch's modes, random state and environment variables belong to the whole process


def launch(
    study: StudyConfig,
    *,
    name: str | None = None,
    studies_dir: str | Path = "studies",
    executor: Name = "ray",
    callbacks: Sequence[Any] = (),
    progress: ProgressDisplay = "auto",
    device: str = "auto",
    default_name: str = "study",
) -> StudyResults:
    """Runs a study and returns its results.

    Works in a script, in a notebook and in any thread. Environment variables and signal handlers are as before when it
    returns, and a Ray that this process has started stays up. One study at a time runs in a process.

    Args:
        study: The settings.
        name: Name of the study, which is its folder in `studies_dir`; a taken one is refused. By default
            `default_name`, numbered if it is taken.
        studies_dir: The folder of all results, made if it is missing.
        executor: `ray`, or `inline` to train teachers and trials in this process, one after the other.
        callbacks: Objects with methods of `Callback`.
        progress: `auto` prints what the command prints: a live panel on a terminal, plain lines elsewhere. `off`
            prints nothing. A console of rich prints there.
        device: Device on which teachers are trained.
        default_name: The name without `name`.

    Returns:
        The results. `state` is `finished`, `timed_out`, `interrupted` (by Ctrl-C or `stop`), or `failed` if no trial
        completed.

    Raises:
        ConfigError: The settings cannot be used, or the name is taken.
        DataError: Images, teachers or the folder cannot be used.
        KeyboardInterrupt: Ctrl-C before the first trial; nothing is kept but finished teachers.
    """
    if not isinstance(study, StudyConfig):
        raise ConfigError(
            f"study: must be a StudyConfig, got {format_value(study)}. StudyConfig.from_yaml reads a file."
        )
    with _session(executor, callbacks, progress) as (screen, observer):
        study = checked(study)
        studies = ensure_writable_dir(studies_dir)
        name = claim(studies, name, default_name, lambda text: screen.print(text, soft_wrap=True))
        baselines = ", ".join(study.baselines) or "none"
        screen.print(f"study {name}: {counted(study.budget.trials, 'trial')}, baselines {baselines}")
        place = StudyLocation(studies, name, device)
        try:
            study = resolve_precision(apply_warm_start(study, studies))
            header = {"name": name, "study_id": uuid.uuid4().hex, "study": study.model_dump(mode="json")}
            return _run(StudySession(study, place, header, screen, executor, observers=(observer,)), observer)
        except BaseException:
            if not place.folder.journal.exists():
                shutil.rmtree(place.home, ignore_errors=True)  # no trial has begun: the name stays free
            raise


def resume(
    path: str | Path,
    *,
    overrides: Overrides = (),
    reevaluate_test: bool = False,
    executor: Name = "ray",
    callbacks: Sequence[Any] = (),
    progress: ProgressDisplay = "auto",
    device: str = "auto",
) -> StudyResults:
    """Resumes a study where it was interrupted, in whatever way, or extends one, and returns its results.

    Args:
        path: The folder of the study, such as `studies/mine`.
        overrides: Values of settings by dotted names, of those alone that leave the trials as they are: `budget`,
            `confirmation`, `resources` and `tracking`.
        reevaluate_test: Evaluate the test set once more if other students than before have won by now.
        executor: As of `launch`; it need not be the one that began the study.
        callbacks: As of `launch`.
        progress: As of `launch`.
        device: As of `launch`.

    Returns:
        The results, as `launch` does.

    Raises:
        DataError: Files of the study are missing or damaged, or its data or teachers have changed.
        ConfigError: The overrides would make its trials incomparable.
    """
    with _session(executor, callbacks, progress) as (screen, observer):
        place = location_of(path, device)
        summary = place.folder.read_summary()
        if summary.get("counts") and not place.folder.journal.exists():
            raise DataError(
                f"{place.folder.journal}: is gone, or this study is of an earlier version; put it back or launch a new "
                "one"
            )
        study = _changed(place, validate(StudyConfig, summary["study"]), overrides)
        header = {name: summary[name] for name in KEPT if name in summary}
        header |= {"study": study.model_dump(mode="json")}
        session = StudySession(study, place, header, screen, executor, summary, reevaluate_test, (observer,))
        return _run(session, observer)


def load_results(path: str | Path) -> StudyResults:
    """Returns the results of a study as they are now, while it runs too.

    Args:
        path: The folder of the study, such as `studies/mine`.

    Raises:
        DataError: There is no study, or no trial has begun.
    """
    return replace(read_facts(location_of(path).home), write_report=_write_report)


def export(
    path: str | Path,
    *,
    out: str | Path | None = None,
    trial: int | None = None,
    top: int = 1,
    formats: Sequence[str] = FORMATS,
    weights_license: str = "",
    device: str = "auto",
) -> list[ExportResult]:
    """Writes students of a study as files that run elsewhere, each with its settings and a model card.

    Args:
        path: The folder of the study, such as `studies/mine`.
        out: Folder for the students, each in a folder of its own below; by default `export` in that of the study.
        trial: Number of one trial or replicate; by default the best `top`.
        top: How many of the best students.
        formats: Some of `safetensors`, `onnx`, `pt2`.
        weights_license: License of the weights, for the card, as an SPDX identifier.
        device: Where the student is compared with the files and timed.

    Returns:
        What was written for each student, the winner first; `folder` is where its files are.

    Raises:
        ConfigError: There is no such student, or a library is missing.
        DataError: Images or files have changed.
        ExportError: A file would not return what the student returns.
    """
    from ensdistill_tune.student_export import ExportRequest, export_students  # here: imports torch

    done: list[ExportResult] = []
    wanted = ExportRequest(top, trial, None if out is None else Path(out), device, weights_license, formats)
    export_students(location_of(path).home, wanted, lambda item, result, version: done.append(result))
    return done


def location_of(path: str | Path, device: str = "auto") -> StudyLocation:
    """Returns the location of the study in a folder."""
    home = Path(path) if Path(path).name else Path(path).resolve()
    return StudyLocation(home.parent, home.name, device)


@contextlib.contextmanager
def _session(
    executor: Name, callbacks: Sequence[Any], progress: ProgressDisplay
) -> Iterator[tuple[Console, CallbackObserver]]:
    """What a session changes in its process, restored after the block; yields the console and the callbacks."""
    if executor not in NAMES:
        raise ConfigError(f"executor: must be one of {', '.join(NAMES)}, got {format_value(executor)}")
    if not isinstance(progress, Console) and progress not in ("auto", "off"):
        raise ConfigError(f"progress: must be one of auto, off, got {format_value(progress)}")
    observer = CallbackObserver(callbacks)
    if not _at_work.acquire(blocking=False):
        raise ConfigError("a study runs in this process already; wait for its end, or use another process")
    try:
        with silence() if progress == "off" else contextlib.nullcontext(), configured(), signals_restored():
            yield progress if isinstance(progress, Console) else console(), observer
    finally:
        _at_work.release()


def _run(session: StudySession, observer: CallbackObserver) -> StudyResults:
    try:
        session.run()
    except KeyboardInterrupt:
        home = session.place.folder
        if not home.journal.exists() or home.read_summary()["state"] != "interrupted":
            raise  # before the first phase
        session.console.print("interrupted")
    results = load_results(session.place.home)
    observer.study_ended(results)
    return results


def _changed(place: StudyLocation, before: StudyConfig, overrides: Overrides) -> StudyConfig:
    study = change_study(before, overrides)
    for name in StudyConfig.model_fields:
        if name not in CHANGEABLE and _decisive(study, name) != _decisive(before, name):
            raise ConfigError(
                f"{origin_of(overrides)}{name}: would make the trials of {place.name} incomparable; what may change "
                f"when a study goes on is {', '.join(CHANGEABLE)}; for the rest launch a new one"
            )
    if study.measures_latency and not before.measures_latency:
        raise ConfigError(
            f"--set constraints: the latencies of the trials of {place.name} were not measured, so none can be "
            "bounded; launch a new study"
        )
    return study


def _decisive(study: StudyConfig, name: str) -> Any:
    """What decides the trials of a setting of a study: files that moved are the same files."""
    return without_files(study.model_dump(mode="json", include={name}), study_files(study.config))


def sync(place: StudyLocation) -> tuple[int, str | None, list[str]]:
    """Sends MLflow the events that it has not taken yet.

    Returns:
        The number of events that are left, the reason if there are any, and what MLflow refused.
    """
    summary = place.folder.read_summary()
    with place.folder.held():
        _, tracker = open_study(validate(StudyConfig, summary["study"]), place, summary)
        tracker.start()
        return tracker.close(), tracker.trouble, tracker.refused


def report(place: StudyLocation) -> tuple[list[Path], str, str | None]:
    """Writes the report of a study as it is now, and stores it in MLflow's parent run.

    Returns:
        The files, the first lines as Markdown, and the reason why MLflow has none of it, if it has not.
    """
    files, lead = _write_report(place.home)
    try:
        with place.folder.held():
            summary = place.folder.read_summary()
            state, tracker = open_study(validate(StudyConfig, summary["study"]), place, summary)
            tracker.start()
            state.append_event(ReportWritten(files=names_within(place.home, files), note=lead))
            return files, lead, tracker.trouble or "no answer" if tracker.close() else None
    except DataError as error:
        return files, lead, str(error)


def _write_report(home: Path) -> tuple[list[Path], str]:
    from ensdistill_tune.report.html import write_report  # here: a slow import

    return write_report(home)


def stored_uri(place: StudyLocation) -> str:
    """Returns the MLflow store of a study that exists, without credentials."""
    return store_of(validate(StudyConfig, place.folder.read_summary()["study"]), place.studies)
