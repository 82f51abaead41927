"""Python API for studies: launch, resume, read results, export, send events to MLflow, write the report."""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from ensdistill.errors import ConfigError, DataError, format_value
from ensdistill.export.format_names import FORMATS
from ensdistill.runtime.files import ensure_writable_dir
from ensdistill.runtime.progress_bar import console, silence
from ensdistill.runtime.text import counted
from ensdistill.settings.paths import without_files
from ensdistill.settings.validation import validate
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.artifacts import names_within
from ensdistill_tune.callbacks import CallbackObserver
from ensdistill_tune.execution.environment import default_variables
from ensdistill_tune.execution.executor import NAMES, Name, signals_restored
from ensdistill_tune.records.events import ReportWritten
from ensdistill_tune.session import StudySession, open_study
from ensdistill_tune.study.claim import claim
from ensdistill_tune.study.loading import Overrides, change_study, checked, origin_of
from ensdistill_tune.study.preparation import apply_warm_start, resolve_precision
from ensdistill_tune.study.study_config import StudyConfig, study_files
from ensdistill_tune.study.study_location import StudyLocation
from ensdistill_tune.tracking.target import store_of

if TYPE_CHECKING:
    from ensdistill.export.exporter import ExportResult

CHANGEABLE = ("budget", "confirmation", "constraints", "resources", "tracking")  # settings that `resume` can change
KEPT = ("name", "study_id", "study_hash", "data_hash", "ensemble_hash", "plugins", "git_commit")  # keys of study.json

ProgressDisplay = Literal["auto", "off"] | Console
_at_work = threading.Lock()  # torch's modes, random state and environment variables are process-wide


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

    The function works in a script, in a notebook and in any thread; a process can run only one study at a time.
    Environment variables and signal handlers are restored on return. If Ray was already running in this process, it
    keeps running.

    Args:
        study: The settings.
        name: Name of the study and of its folder in `studies_dir`; must not be in use yet. If None, `default_name` is
            used, followed by a number if that name is already in use.
        studies_dir: The folder that contains all studies, created if it is missing.
        executor: `ray`, or `inline` to train teachers and students in this process, one after the other.
        callbacks: Objects that define one or more methods of `Callback`.
        progress: `auto` prints the same output as `ensdistill-tune launch`: a live panel on a terminal, plain lines
            elsewhere. `off` prints nothing. If a rich console is given, the output is printed to that console.
        device: Device on which teachers are trained.
        default_name: Name to use if `name` is None.

    Returns:
        The results. `state` is `finished`, `timed_out`, `interrupted` (by Ctrl-C or `stop`), or `failed` if no trial
        completed.

    Raises:
        ConfigError: The settings cannot be used, or the name is in use.
        DataError: Images, teachers or the folder cannot be used.
        KeyboardInterrupt: Ctrl-C was pressed before the first trial; only completed teachers are kept.
    """
    if not isinstance(study, StudyConfig):
        raise ConfigError(
            f"study: must be a StudyConfig, got {format_value(study)}. Use StudyConfig.from_yaml to read a file."
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
                shutil.rmtree(place.home, ignore_errors=True)  # no trial has started, so the name becomes free again
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
    """Resumes an interrupted study, or extends a finished study, and returns its results.

    Args:
        path: The folder of the study, such as `studies/mine`.
        overrides: Settings to change, keyed by dotted name. Only settings that keep the trials comparable may change:
            `budget`, `confirmation`, `constraints`, `resources` and `tracking`.
        reevaluate_test: Whether to evaluate the test set again if it was already evaluated for other students.
        executor: As in `launch`; may differ from the executor of earlier sessions.
        callbacks: As in `launch`.
        progress: As in `launch`.
        device: As in `launch`.

    Returns:
        The results, as in `launch`.

    Raises:
        DataError: Files of the study are missing or damaged, or its data or teachers have changed.
        ConfigError: An override would make the trials incomparable.
    """
    with _session(executor, callbacks, progress) as (screen, observer):
        place = location_of(path, device)
        summary = place.folder.read_summary()
        if summary.get("counts") and not place.folder.journal.exists():
            raise DataError(f"{place.folder.journal}: must exist, but is missing; restore it or launch a new study")
        study = _changed(place, validate(StudyConfig, summary["study"]), overrides)
        header = {name: summary[name] for name in KEPT if name in summary}
        header |= {"study": study.model_dump(mode="json")}
        session = StudySession(study, place, header, screen, executor, summary, reevaluate_test, (observer,))
        return _run(session, observer)


def load_results(path: str | Path) -> StudyResults:
    """Returns the current results of a study, even while the study is running.

    Args:
        path: The folder of the study, such as `studies/mine`.

    Raises:
        DataError: The study does not exist, or no trial has started.
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
    """Exports students of a study to deployable formats, together with their settings and model cards.

    Args:
        path: The folder of the study, such as `studies/mine`.
        out: Folder that receives one subfolder per student; by default, `export` in the folder of the study.
        trial: Number of the one trial or replicate to export; None to export the `top` best students.
        top: Number of best students to export.
        formats: Formats to write: any of `safetensors`, `onnx` and `pt2`.
        weights_license: License of the weights for the model card, as an SPDX identifier.
        device: Device on which the exported files are verified and timed.

    Returns:
        One result per student, the winner first; the `folder` of a result contains the exported files.

    Raises:
        ConfigError: The student does not exist, or a library is missing.
        DataError: Images or files have changed.
        ExportError: An exported file does not reproduce the student's outputs.
    """
    from ensdistill_tune.student_export import ExportRequest, export_students  # imported here, because it imports torch

    done: list[ExportResult] = []
    wanted = ExportRequest(top, trial, None if out is None else Path(out), device, weights_license, formats)
    export_students(location_of(path).home, wanted, lambda item, result, version: done.append(result))
    return done


def location_of(path: str | Path, device: str = "auto") -> StudyLocation:
    """Returns the location of a study.

    Args:
        path: The folder of the study.
        device: Device on which teachers are trained.
    """
    home = Path(path) if Path(path).name else Path(path).resolve()
    return StudyLocation(home.parent, home.name, device)


@contextlib.contextmanager
def _session(
    executor: Name, callbacks: Sequence[Any], progress: ProgressDisplay
) -> Iterator[tuple[Console, CallbackObserver]]:
    """Configures the process for the block, then restores the previous state; yields console and callbacks."""
    if executor not in NAMES:
        raise ConfigError(f"executor: must be one of {', '.join(NAMES)}, got {format_value(executor)}")
    if not isinstance(progress, Console) and progress not in ("auto", "off"):
        raise ConfigError(f"progress: must be one of auto, off, got {format_value(progress)}")
    observer = CallbackObserver(callbacks)
    if not _at_work.acquire(blocking=False):
        raise ConfigError("a study is already running in this process; wait until it ends, or use another process")
    try:
        with silence() if progress == "off" else contextlib.nullcontext(), default_variables(), signals_restored():
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
                f"{origin_of(overrides)}{name}: with this change, the trials of {place.name} would not be comparable; "
                "only "
                f"{', '.join(CHANGEABLE)} may change when a study is resumed. Launch a new study for other changes."
            )
    if study.measures_latency and not before.measures_latency:
        raise ConfigError(
            f"--set constraints: must not bound the latency, because no latency was measured in {place.name}; launch a "
            "new study"
        )
    kept = before.resources.num_to_keep
    if study.constraints != before.constraints and kept is not None:
        raise ConfigError(
            f"{origin_of(overrides)}constraints: must not change, because only the students of the best {kept} trials "
            f"were kept (resources.num_to_keep), and a trial without a student could become the best; launch a new "
            "study"
        )
    return study


def _decisive(study: StudyConfig, name: str) -> Any:
    """Returns a setting for comparison; file paths are left out, because files may be moved."""
    return without_files(study.model_dump(mode="json", include={name}), study_files(study.config))


def sync(place: StudyLocation) -> tuple[int, str | None, list[str]]:
    """Sends pending events of a study to MLflow.

    Args:
        place: Location of the study.

    Returns:
        The number of pending events, the reason why they are pending (if any), and the entries that MLflow refused.
    """
    summary = place.folder.read_summary()
    with place.folder.held():
        _, tracker = open_study(validate(StudyConfig, summary["study"]), place, summary)
        tracker.start()
        return tracker.close(), tracker.trouble, tracker.refused


def report(place: StudyLocation) -> tuple[list[Path], str, str | None]:
    """Writes a report on the current state of a study, and logs the report to the parent run in MLflow.

    Args:
        place: Location of the study.

    Returns:
        The files, the summary as Markdown, and the reason why MLflow did not receive the report (None if it did).
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
    from ensdistill_tune.report.html import write_report  # imported here, because it is slow

    return write_report(home)


def stored_uri(place: StudyLocation) -> str:
    """Returns the URI of the MLflow store of an existing study, without credentials."""
    return store_of(validate(StudyConfig, place.folder.read_summary()["study"]), place.studies)
