"""Estimates the cost of a study by timing epochs of untrained networks; the results of these epochs are discarded."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import ceil, inf
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch

from ensdistill.config import Config
from ensdistill.data import DataSplits, load_data
from ensdistill.errors import ConfigError, ConfigIssue, DataError, EnsdistillError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models import build
from ensdistill.runtime.devices import pick_device
from ensdistill.runtime.text import counted
from ensdistill.training.loop import distill
from ensdistill.training.new_student import check_student
from ensdistill.training.teachers import open_teacher_files, teacher_config, teacher_hash
from ensdistill_tune.execution.disk_estimate import DiskEstimate, disk_estimate
from ensdistill_tune.formatting import duration
from ensdistill_tune.records.trial_record import HoursUsed
from ensdistill_tune.study.study_config import Resources, StudyConfig
from ensdistill_tune.study.validation import class_issues

ENOUGH = 0.2  # minimum training time in seconds from which the duration of an epoch is extrapolated
PATIENCE = 10.0  # seconds after which no further kind of trial is timed
DRAWS = 8  # number of random trials that represent all search trials


@dataclass(frozen=True)
class CostEstimate:
    """Cost of a study on this machine if no trial is stopped early.

    Durations are training times in seconds, added up as if the networks were trained one after the other.

    Attributes:
        epoch: Mean epoch duration of the randomly drawn search trials.
        shortest_epoch: Shortest epoch duration of the timed trials, including baselines.
        longest_epoch: Longest epoch duration of the timed trials, including baselines.
        kinds: Number of distinct kinds of trials; trials of the same kind have the same epoch duration.
        kinds_timed: Number of kinds that were timed; the remaining kinds are assumed to have the mean epoch duration.
        teachers: Training time of the teachers that are not in the store yet.
        teachers_there: Number of teachers of this study that are already in the store.
        search: Training time of all search trials and baselines.
        confirmation: Training time of all replicates.
        side_by_side: Number of trials that this machine can run in parallel.
        search_cpu_hours: CPU hours of search trials and baselines.
        search_gpu_hours: GPU hours of search trials and baselines.
        confirmation_cpu_hours: CPU hours of the replicates.
        confirmation_gpu_hours: GPU hours of the replicates.
        disk: Disk space that the study needs.
    """

    epoch: float
    shortest_epoch: float
    longest_epoch: float
    kinds: int
    kinds_timed: int
    teachers: float
    teachers_there: int
    search: float
    confirmation: float
    side_by_side: int
    search_cpu_hours: float = 0.0
    search_gpu_hours: float = 0.0
    confirmation_cpu_hours: float = 0.0
    confirmation_gpu_hours: float = 0.0
    disk: DiskEstimate | None = None

    @property
    def total(self) -> float:
        """Wall time in seconds if the teachers are trained one after the other and the trials then run in parallel."""
        return self.teachers + (self.search + self.confirmation) / max(1, self.side_by_side)


Warn = Callable[[Iterable[ConfigIssue]], object]


def estimate(study: StudyConfig, studies: Path, warn: Warn = list) -> tuple[CostEstimate | None, str]:
    """Returns the estimated cost of a study, and a description of this cost for the user.

    Args:
        study: The settings.
        studies: The folder that contains all studies and the store of teachers.
        warn: Called with warnings about the images and about teachers that are loaded from files.

    Returns:
        The estimate and its description; if no epoch can be timed on this machine, None and the reason.

    Raises:
        DataError: The images cannot be read.
        ConfigError: One of the trials cannot use the images, for example because there are too few images.
    """
    config = study.base_config
    if study.resources.gpus and not torch.cuda.is_available():
        return None, "no cost estimate: trials require a GPU (resources.gpus), but this machine has none"
    fetched = getattr(config.data, "download", False)
    try:
        data = load_data(config.data.model_copy(update={"download": False}) if fetched else config.data, studies)
    except DataError:
        if fetched:
            return None, "no cost estimate: the images are not downloaded yet (data.download downloads them at launch)"
        raise
    warn(data.warnings)
    if issues := class_issues(study, len(data.class_names)):
        raise ConfigError(issues)
    teachers, there = _teachers(config, data.to(pick_device("auto")), studies / "teachers")
    cost = _cost(study, data.to("cuda" if study.resources.gpus else "cpu"), teachers, there, warn, studies)
    return cost, _in_words(study, cost)


def side_by_side(resources: Resources) -> int:
    """Returns the number of trials that this machine can run in parallel; 0 if it cannot run any trial.

    Args:
        resources: Resources that each trial requires.
    """
    gpus = torch.cuda.device_count() / resources.gpus if resources.gpus else inf
    return int(min((os.cpu_count() or 1) / resources.cpus, gpus, resources.max_concurrent or inf))


# --- timing ---------------------------------------------------------------------------------------------------


def epoch_seconds(config: Config, ensemble: TeacherEnsemble, data: DataSplits) -> float:
    """Returns the epoch duration in seconds, extrapolated from training steps that take at least `ENOUGH` seconds.

    Args:
        config: The settings of the training run.
        ensemble: The teachers.
        data: Splits of the study.
    """
    steps, tried = len(data.train) // config.training.batch_size, 1
    while (seconds := _timed(config, ensemble, _part(data, tried, config))) < ENOUGH and tried < steps:
        tried = min(steps, max(2 * tried, int(tried * ENOUGH / seconds)))
    return seconds * steps / tried


def _timed(config: Config, ensemble: TeacherEnsemble, data: DataSplits) -> float:
    """Returns the median duration of three epochs (fewer if they are long), after a warm-up epoch."""
    # The small learning rate prevents NaN losses; with 1000 epochs, training stays in the first phase of a schedule.
    optimizer = config.training.optimizer.model_copy(update={"lr": 1e-6})
    training = config.training.model_copy(update={"optimizer": optimizer, "epochs": 1000})
    run = distill(config.model_copy(update={"training": training}), ensemble, data)
    next(run)
    seconds = [next(run).seconds]
    while len(seconds) < 3 and sum(seconds) < 5 * ENOUGH:
        seconds.append(next(run).seconds)
    return median(seconds)


def _part(data: DataSplits, steps: int, config: Config) -> DataSplits:
    """Returns the training images for `steps` steps, and the same fraction of the validation images."""
    batch = config.training.batch_size
    share = steps / (len(data.train) // batch)
    train, validation = data.train, data.validation
    shown = max(2, ceil(share * len(validation)))
    return (
        data
        if share == 1
        else replace(data, train=train.take(slice(steps * batch)), validation=validation.take(slice(shown)))
    )


def _teachers(config: Config, data: DataSplits, store: Path) -> tuple[float, int]:
    """Returns the training time of the missing teachers in seconds, and the number of teachers already in the store."""
    all_of_them = range(config.teachers.count)
    missing = [m for m in all_of_them if not (store / teacher_hash(config, m, data) / "teacher.json").is_file()]
    no_teachers, known = TeacherEnsemble([], len(data.class_names), "none"), dict[str, float]()
    for m in missing:
        own = teacher_config(config, m)
        check_student(own, data)
        if repr(own.model) not in known:
            known[repr(own.model)] = epoch_seconds(own, no_teachers, data)
    epochs = config.teachers.training.epochs
    return sum(known[repr(config.teachers.model_of(m))] * epochs for m in missing), len(all_of_them) - len(missing)


def _untrained(config: Config, data: DataSplits, studies: Path) -> TeacherEnsemble:
    """Returns an ensemble of untrained networks, which is as fast as the trained ensemble."""
    own = [teacher_config(config, m) for m in range(config.teachers.count)]
    files, found = open_teacher_files(config, data, studies)
    networks = [build(one.model, data, one.seed) for one in own] + [file.network for file in files]
    return TeacherEnsemble(networks, len(data.class_names), "untrained", found)


def _cost(study: StudyConfig, data: DataSplits, teachers: float, there: int, warn: Warn, studies: Path) -> CostEstimate:
    for one in (study.base_config, *study.distinct_architectures):
        check_student(one, data)
    ensemble = _untrained(study.base_config, data, studies)
    warn(ensemble.warnings)
    drawn = list(_random_trials(study)) or [study.base_config]
    baselines = [study.baseline_config(name) for name in study.baselines]
    in_turn = [config for pair in zip_longest(drawn, baselines) for config in pair if config]
    known = _time_kinds(in_turn, ensemble, data)
    average = fmean(known.values())
    searched = fmean(known.get(_kind(config), average) for config in drawn)
    published = sum(known.get(_kind(config), average) for config in baselines)
    repeated = (
        min(study.confirmation.top_k, study.budget.trials) * searched + published if study.confirmation.top_k else 0.0
    )
    search = _search_epochs(study, searched) * searched + published * study.epochs
    confirmation = repeated * study.confirmation.seeds * study.epochs
    cpus, gpus = study.resources.cpus / 3600, study.resources.gpus / 3600
    return CostEstimate(
        epoch=searched,
        shortest_epoch=min(known.values()),
        longest_epoch=max(known.values()),
        kinds=len({_kind(config) for config in in_turn}),
        kinds_timed=len(known),
        teachers=teachers,
        teachers_there=there,
        search=search,
        confirmation=confirmation,
        side_by_side=side_by_side(study.resources),
        search_cpu_hours=search * cpus,
        search_gpu_hours=search * gpus,
        confirmation_cpu_hours=confirmation * cpus,
        confirmation_gpu_hours=confirmation * gpus,
        disk=disk_estimate(study, data, studies, there, side_by_side(study.resources)),
    )


def _search_epochs(study: StudyConfig, seconds: float) -> int:
    """Returns an upper bound on the total number of search epochs; `seconds` is the duration of one epoch.

    Trials that start before a budget is spent run to completion.
    """
    budget, given = study.budget, study.resources
    limits = [budget.epochs] if budget.epochs is not None else []
    hours = ((budget.cpu_hours, given.cpus), (budget.gpu_hours, given.gpus))
    limits += [ceil(3600 * limit / (share * seconds)) for limit, share in hours if limit and share]
    whole = (ceil(limit / study.epochs) * study.epochs for limit in limits)
    return min([budget.trials * study.epochs, *whole])


def _time_kinds(configs: Iterable[Config], ensemble: TeacherEnsemble, data: DataSplits) -> dict[str, float]:
    """Returns epoch durations in seconds, keyed by kind of trial, for all kinds that can be timed within `PATIENCE`.

    A kind of trial that cannot run is skipped: in the study, its trials would fail without stopping the other trials.
    If no kind can run, the last error is raised.
    """
    known: dict[str, float] = {}
    trouble: EnsdistillError | None = None
    begun = time.perf_counter()
    for config in configs:
        if _kind(config) in known or (known and time.perf_counter() - begun >= PATIENCE):
            continue
        try:
            known[_kind(config)] = epoch_seconds(config, ensemble, data)
        except EnsdistillError as error:
            trouble = error
    if trouble and not known:
        raise trouble
    return known


def _kind(config: Config) -> str:
    """Returns a dictionary key that represents the settings on which the duration of an epoch depends."""
    pieces = [piece.kind for piece in (config.perturbation, config.loss, config.averaging)]
    training = config.training.model_copy(update={"optimizer": config.training.optimizer.kind})
    return repr((config.model, config.student, pieces, training))


def _random_trials(study: StudyConfig) -> Iterator[Config]:
    """Yields the settings of random trials; skips incompatible combinations of values."""
    shares = np.random.default_rng(0)
    for _ in range(DRAWS):
        sampled = study.space.draw(lambda name, axis: axis.from_unit_interval(shares.random()))
        try:
            yield study.trial_config(sampled)
        except ConfigError:
            continue


# --- description -----------------------------------------------------------------------------------------------------


def _in_words(study: StudyConfig, cost: CostEstimate) -> str:
    longest = f" to {duration(cost.longest_epoch)}" if cost.kinds_timed > 1 else ""
    some = f"{cost.kinds_timed} of " if cost.kinds_timed < cost.kinds else ""
    timed, epochs = f"{some}{counted(cost.kinds, 'kind')}", counted(study.epochs, "epoch")
    lines = [
        f"one epoch of a trial took {duration(cost.shortest_epoch)}{longest} on this machine "
        f"({timed} of trials timed, with untrained teachers)",
        f"teachers: {_teachers_in_words(study, cost)}",
        f"search, if no trial is stopped early: {counted(study.num_trials, 'trial')} of {epochs}: "
        + _both(cost.search, cost),
    ]
    if cost.confirmation:
        most = f"at most {counted(study.expected_replicates, 'trial')}"
        lines.append(f"confirmation: {most} of {epochs}: {_both(cost.confirmation, cost)}")
    lines.append(f"total: about {duration(cost.total)}, plus the time to start Ray")
    lines += _hours_in_words(study, cost)
    if cost.disk:
        lines.append(cost.disk.in_words())
    if not cost.side_by_side:
        lines.append("this machine cannot run a trial: lower resources.cpus or resources.gpus, or set RAY_ADDRESS")
    if study.budget.minutes:
        lines.append(f"budget.minutes ends search and confirmation after {duration(study.budget.minutes * 60)}")
    return "\n".join(lines)


def _hours_in_words(study: StudyConfig, cost: CostEstimate) -> Iterator[str]:
    """Yields lines about the resource hours of the trials and about the budgets that limit these hours."""
    search = HoursUsed(cost.search_cpu_hours, cost.search_gpu_hours)
    confirmation = HoursUsed(cost.confirmation_cpu_hours, cost.confirmation_gpu_hours)
    more = f", confirmation about {confirmation}" if cost.confirmation else ""
    yield f"resource hours (wall time x resources, without teachers): search about {search}{more}"
    for name, hours in (("cpu_hours", study.budget.cpu_hours), ("gpu_hours", study.budget.gpu_hours)):
        if hours is not None:
            yield f"budget.{name}: the search starts no more trials once baselines and trials have used {hours:g} hours"


def _teachers_in_words(study: StudyConfig, cost: CostEstimate) -> str:
    teachers = study.base_config.teachers
    missing = teachers.count - cost.teachers_there
    there = f"{cost.teachers_there} already in the store (no cost)" if cost.teachers_there else ""
    new = (
        f"{missing} x {counted(teachers.training.epochs, 'epoch')}: about {duration(cost.teachers)}" if missing else ""
    )
    return "; ".join(filter(None, [new, there])) or "none to train"


def _both(seconds: float, cost: CostEstimate) -> str:
    together = f", {duration(seconds / cost.side_by_side)} with {cost.side_by_side} in parallel"
    return f"about {duration(seconds)} one at a time" + (together if cost.side_by_side > 1 else "")
