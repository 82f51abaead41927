"""Ray: puts what trials share into its object store once, runs the search, and translates its events into records."""

import contextlib
import logging
import os
import signal
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # our own record is complete and cheaper
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # and our own progress is shown
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a trial without a GPU sees none

import ray
from ray import tune
from ray.tune.search import Searcher

from ensdistill.config import flatten
from ensdistill.data import Data
from ensdistill.errors import ConfigError, DataError
from ensdistill.members import Ensemble
from tune.progress import Progress
from tune.record import FAILURE, TrialRecord
from tune.searchers import InOrder, StudySearch, Suggest
from tune.space import Study
from tune.trial import Inputs, run_trial


@contextlib.contextmanager
def cluster(study: Study) -> Iterator[None]:
    """Ray, on this machine or at RAY_ADDRESS, inside the block.

    Raises ConfigError if no machine of the cluster can ever give a trial what it asks for.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"RAY_ADDRESS {address}: Ray cannot be used there ({reason})") from error
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the screen says what failed, and why
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _check_resources(study)
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        ray.shutdown()


def _interrupt(number: int, frame: object) -> None:
    """What a batch system or a container sends to end a process is an interrupt like Ctrl-C."""
    raise KeyboardInterrupt


def _check_address(address: str) -> None:
    """Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # "local", "auto", or an address of another scheme
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise DataError(
            f"RAY_ADDRESS {address}: no Ray cluster answers there; unset it to run on this machine"
        ) from error


def run_trials(progress: Progress, data: Data, ensemble: Ensemble, curve: Sequence[float]) -> str:
    """Runs the whole search in a cluster and returns how it ended: `finished`, `out_of_time` or `interrupted`.

    curve: calibrated NLL on validation of 1, 2, ..., M teachers. Failed trials do not end it.
    """
    study = progress.study
    suggest = Suggest(study.search, study.order)
    search = StudySearch(suggest, study.baselines, study.searcher.sampler(), study.objective, study.mode)
    _fit(_tuner(progress, "ray", search, progress.total, Inputs.of(study, data, ensemble, curve)))
    return _close(progress, progress.searched, progress.total)


def run_repeats(
    progress: Progress, plan: list[dict[str, Any]], data: Data, ensemble: Ensemble, curve: Sequence[float]
) -> str:
    """Runs a list of suggestions, each to its end, and returns how that ended, as `run_trials` does."""
    progress.repeats_planned = len(plan)
    _fit(_tuner(progress, "ray-confirm", InOrder(plan), len(plan), Inputs.of(progress.study, data, ensemble, curve)))
    return _close(progress, progress.repeats, len(plan))


def _fit(tuner: tune.Tuner) -> None:
    with warnings.catch_warnings(), contextlib.suppress(KeyboardInterrupt, SystemExit):
        warnings.simplefilter("ignore")
        tuner.fit()


def _tuner(progress: Progress, name: str, search: Searcher, trials: int, inputs: Inputs) -> tune.Tuner:
    study = progress.study
    trainable = tune.with_parameters(run_trial, inputs=inputs)
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": study.trial.cpu, "gpu": study.trial.gpu}),
        tune_config=tune.TuneConfig(
            metric=study.objective,
            mode=study.mode,
            search_alg=search,
            scheduler=study.scheduler(study.epochs) if isinstance(search, StudySearch) else None,
            num_samples=trials,
            time_budget_s=progress.seconds_left,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(progress.folder.path.resolve()),
            callbacks=[_Recorder(progress)],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=study.trial.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )


class _Recorder(tune.Callback):
    """Ray's events as records. Ray keeps its callbacks on disk; this one belongs to its process and leaves nothing."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.begun: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.trial_id in self.progress.trials:
            return  # started again after its process died
        study, suggestion = self.progress.study, trial.config
        record = TrialRecord(trial_id=trial.trial_id, config_hash="", **suggestion)
        settings = dict(suggestion["sampled"])
        with contextlib.suppress(ConfigError):  # the trial itself will say what does not fit together
            config = study.config_of(suggestion["baseline"], suggestion["sampled"], suggestion.get("seed"))
            record.config_hash, settings = config.hash, flatten(config.model_dump(mode="json"))
        self.begun[trial.trial_id] = time.perf_counter()
        self.progress.start(record, settings)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self.progress.trials[trial.trial_id]
        if FAILURE in result:
            record.error = result[FAILURE]
            return
        if record.epochs and result["epoch"] <= record.last["epoch"]:
            return  # a trial that was started again repeats the epochs since its last checkpoint, to the last digit
        names = ("epoch", "epochs", "train/", "val/", "subnetworks/", "cost/")
        report = {name: float(value) for name, value in result.items() if name.startswith(names)}
        if not record.epochs:
            waited = time.perf_counter() - self.begun[trial.trial_id]
            report["cost/overhead_seconds"] = waited - report["cost/epoch_seconds"]
        record.epochs.append(report)
        self.progress.report(record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self.progress.trials[trial.trial_id]
        record.checkpoint = trial.checkpoint.path if trial.checkpoint else None
        whole = bool(record.epochs) and record.last["epoch"] == record.last["epochs"]
        self.progress.end(record, "failed" if record.error else "finished" if whole else "pruned")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self.progress.trials.get(trial.trial_id)
        if record is not None:
            record.error = _last_line(trial)
            self.progress.end(record, "failed")


def _close(progress: Progress, records: Sequence[TrialRecord], planned: int) -> str:
    """After an interrupt Ray's `fit` returns as if all were well: ends what still counts as running."""
    left = [record for record in records if record.state == "running"]
    for record in left:
        progress.end(record, "interrupted")
    if not left and len(records) == planned:
        return "finished"
    return "out_of_time" if progress.out_of_time else "interrupted"


def _check_resources(study: Study) -> None:
    wanted = {"CPU": study.trial.cpu, "GPU": study.trial.gpu}
    nodes: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if any(all(node.get(what, 0) >= amount for what, amount in wanted.items()) for node in nodes):
        return
    here = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
    raise ConfigError(
        f"trial: {study.trial.cpu:g} CPU and {study.trial.gpu:g} GPU a trial are more than any machine has ({here}); "
        "lower trial.cpu or trial.gpu"
    )


def _last_line(trial: Any) -> str:
    try:
        lines = [line.strip() for line in Path(trial.error_file).read_text().splitlines() if line.strip()]
    except (OSError, TypeError):
        return "the worker process died"
    return lines[-1].removeprefix("ensdistill.errors.")
