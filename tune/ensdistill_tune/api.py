"""What can be done with a study: launch, resume, send it to MLflow, write its report."""

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ensdistill.errors import ConfigError, DataError
from ensdistill.settings.paths import without_files
from ensdistill.settings.validation import validate
from ensdistill_tune.execution.executor import Name
from ensdistill_tune.phases import names_within
from ensdistill_tune.records.events import ReportWritten
from ensdistill_tune.session import StudySession, open_study
from ensdistill_tune.study.loading import change_study
from ensdistill_tune.study.preparation import apply_warm_start, resolve_precision
from ensdistill_tune.study.study_config import StudyConfig, study_files
from ensdistill_tune.study.study_location import StudyLocation
from ensdistill_tune.tracking.target import store_of

CHANGEABLE = ("budget", "confirmation", "constraints", "resources", "tracking")  # when a study is resumed
KEPT = ("name", "study_id", "study_hash", "data_hash", "ensemble_hash", "plugins", "git_commit")  # in study.json


def launch(study: StudyConfig, place: StudyLocation, console: Console, *, executor: Name = "ray") -> str:
    """Runs a study.

    A program that calls this configures its process first, as the command does:
    `ensdistill_tune.execution.environment.configure_process`.

    Args:
        study: The settings.
        place: Where it works; its folder exists and is empty.
        console: Where everything is printed.
        executor: `ray`, or `inline` to train teachers and trials in this process, one after the other.

    Returns:
        How it ended: `finished`, `timed_out`, `interrupted`, or `failed` if no trial completed.
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
    """Resumes a study where it was interrupted, in whatever way, or extends one.

    Args:
        place: Where the study is.
        changes: `a.b=value` overrides, of those settings alone that leave the trials as they are.
        console: Where everything is printed.
        reevaluate_test: Evaluate the test set once more if other students than before have won by now.
        executor: As of `launch`; it need not be the one that began the study.

    Returns:
        How it ended, as `launch` does.

    Raises:
        DataError: Files of the study are missing or damaged, or its data or teachers have changed.
        ConfigError: The changes would make its trials incomparable.
    """
    summary = place.folder.read_summary()
    if summary.get("counts") and not place.folder.journal.exists():
        raise DataError(
            f"{place.folder.journal}: is gone, or this study is of an earlier version; put it back or launch a new one"
        )
    study = _changed(place, validate(StudyConfig, summary["study"]), changes)
    header = {name: summary[name] for name in KEPT if name in summary}
    header |= {"study": study.model_dump(mode="json")}
    return StudySession(study, place, header, console, executor, summary, reevaluate_test).run()


def _changed(place: StudyLocation, before: StudyConfig, changes: Sequence[str]) -> StudyConfig:
    study = change_study(before, changes)
    for name in StudyConfig.model_fields:
        if name not in CHANGEABLE and _decisive(study, name) != _decisive(before, name):
            raise ConfigError(
                f"--set {name}: would make the trials of {place.name} incomparable; what may change when a study goes "
                f"on is {', '.join(CHANGEABLE)}; for the rest launch a new one"
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
    from ensdistill_tune.report.html import write_report  # here: a slow import

    files, lead = write_report(place.home)
    try:
        with place.folder.held():
            summary = place.folder.read_summary()
            state, tracker = open_study(validate(StudyConfig, summary["study"]), place, summary)
            tracker.start()
            state.append_event(ReportWritten(files=names_within(place.home, files), note=lead))
            return files, lead, tracker.trouble or "no answer" if tracker.close() else None
    except DataError as error:
        return files, lead, str(error)


def stored_uri(place: StudyLocation) -> str:
    """Returns the MLflow store of a study that exists, without credentials."""
    return store_of(validate(StudyConfig, place.folder.read_summary()["study"]), place.studies)
