"""Runs one trial in any process: sampled values -> config -> `ensdistill.training.loop` -> reports and checkpoints."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ensdistill import DataSplits, Distiller, EpochResult
from ensdistill.config import Config
from ensdistill.errors import DataError, EnsdistillError
from ensdistill.evaluation.ensemble_metrics import deep_ensemble_equivalent
from ensdistill.evaluation.evaluator import model_complexity
from ensdistill.export.student_file import student_metadata
from ensdistill.runtime.weights import STUDENT_FILE, save_weights
from ensdistill.training.teacher_logits import TeacherLogitCache
from ensdistill_tune.execution.memory import memory_limit
from ensdistill_tune.execution.shared_inputs import SharedInputs, device_of
from ensdistill_tune.metric_names import SELECTED_EPOCH
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_progress import TrialProgress, clear_progress, write_progress
from ensdistill_tune.records.trial_record import CHECKPOINT, EPOCHS, FAILURE, FAILURE_KIND, TrialRecord
from ensdistill_tune.search.pbt import CHECKPOINT_AFTER, Pbt
from ensdistill_tune.study.study_config import StudyConfig

Report = Callable[[dict[str, Any]], None]  # sends a message to the study; does not return if the trial is stopped
REPORT_SECONDS = 1.0  # minimum interval between reports; one report takes milliseconds in the worker and in the study


def run_trial(suggestion: dict[str, Any], inputs: SharedInputs, report: Report) -> None:
    """Trains one student, starting from its checkpoint if there is one. Short epochs are reported in groups.

    Args:
        suggestion: The trial, as `ensdistill_tune.execution.trial_planner.TrialPlanner.next` returns it.
        inputs: Settings, data and teachers, shared by all trials.
        report: Function that sends a report. A report contains the metrics of each epoch since the last report
            (`EPOCHS`) and, if the trial failed, the error (`FAILURE`).
    """
    reports = _EpochReporter(report)
    try:
        with memory_limit(inputs.study.resources.gpus):
            _run(suggestion, inputs, reports)
    except EnsdistillError as error:
        # Reported instead of raised: after an exception, Ray would restart the trial, which would fail again.
        reports.send(**{FAILURE: str(error), FAILURE_KIND: type(error).__name__})


class _EpochReporter:
    """Buffers epochs and reports them in groups."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._epochs: list[dict[str, float]] = []
        self._seconds = 0.0

    def add(self, metrics: dict[str, float], seconds: float, *, at_once: bool) -> None:
        """Adds an epoch. Sends the buffer if `at_once` is True or the buffered epochs took over a second in total."""
        self._epochs.append(metrics)
        self._seconds += seconds
        if at_once or self._seconds > REPORT_SECONDS:
            self.send()

    def send(self, **more: str) -> None:
        """Sends the buffer. Returns once the study has recorded the epochs; does not return if the trial is stopped."""
        epochs, self._epochs, self._seconds = self._epochs, [], 0.0
        self._report({EPOCHS: epochs, **more})


def _run(suggestion: dict[str, Any], inputs: SharedInputs, reports: _EpochReporter) -> None:
    study, home = inputs.study, inputs.folder.trial(suggestion["number"])
    config = study.config_for(TrialRecord(config_hash="", **suggestion))
    data, ensemble = inputs.unpack(device_of(study))
    metadata = student_metadata(config, data, ensemble.identity)
    decision_epochs, costs, unsaved = study.scheduler.decision_epochs(study.epochs), None, 0.0
    distiller = _begin(config, inputs.teacher_logits, data, _checkpoint(suggestion, inputs.folder))
    clear_progress(home)  # removes the progress of an epoch that was interrupted
    distiller.on_progress = lambda now: write_progress(home, TrialProgress(**asdict(now)))
    for epoch in distiller:
        clear_progress(home)
        if config.schedule and suggestion["parent"] and epoch.number <= config.schedule[-1].after_epoch:
            continue  # already reported by the parent trial
        costs = costs or model_complexity(distiller.student(), data.train.images.shape[1:])
        if epoch.last:
            save_weights(home / STUDENT_FILE, distiller.student(), metadata)
        unsaved += epoch.seconds
        saves = unsaved > study.resources.checkpoint_interval_s and not epoch.last
        metrics = _metrics(epoch, inputs.curve, costs)
        metrics |= {SELECTED_EPOCH: epoch.selected} if config.training.select_epoch != "last" else {}
        reports.add(metrics, epoch.seconds, at_once=epoch.last or saves or epoch.number in decision_epochs)
        # Checkpoints are saved after the study has recorded the epoch, so they are never ahead of the event log.
        if _others_may_begin(study, epoch):
            distiller.save_checkpoint(home / CHECKPOINT_AFTER.format(epoch=epoch.number))
        if saves:
            distiller.save_checkpoint(home / CHECKPOINT)
            unsaved = 0.0


def _checkpoint(suggestion: dict[str, Any], folder: StudyDirectory) -> Path:
    """Returns the path of the checkpoint from which a trial starts: its last checkpoint, or one of its parent trial."""
    own = folder.trial(suggestion["number"]) / CHECKPOINT
    if own.exists() or not suggestion["parent"]:
        return own
    return folder.trial(suggestion["parent"]) / CHECKPOINT_AFTER.format(epoch=suggestion["schedule"][-1]["after_epoch"])


def _others_may_begin(study: StudyConfig, epoch: EpochResult) -> bool:
    return isinstance(study.scheduler, Pbt) and not epoch.last and epoch.number % study.scheduler.interval_epochs == 0


def _begin(config: Config, cache: TeacherLogitCache, data: DataSplits, checkpoint: Path) -> Distiller:
    """Returns the training run of a student, new or resumed from a checkpoint; a damaged checkpoint is ignored."""
    if checkpoint.exists():
        with contextlib.suppress(DataError):
            return Distiller(config, cache.ensemble, data, resume=checkpoint, cache=cache)
    return Distiller(config, cache.ensemble, data, cache=cache)


def _metrics(epoch: EpochResult, curve: Sequence[float], costs: dict[str, float]) -> dict[str, float]:
    """Returns all metrics of a trial after an epoch; the costs are those of the exported network."""
    metrics: dict[str, float] = {"epoch": epoch.number, "epochs": epoch.epochs, "train/loss": epoch.loss}
    metrics |= {f"val/{name}": value for name, value in epoch.val.items()}
    metrics["val/dee"] = deep_ensemble_equivalent(epoch.val["cnll"], curve)
    metrics |= {f"subnetworks/{name}": value for name, value in epoch.subnetworks.items()}
    metrics |= {f"cost/{name}": value for name, value in costs.items()}
    return metrics | {"time/epoch_seconds": epoch.seconds}
