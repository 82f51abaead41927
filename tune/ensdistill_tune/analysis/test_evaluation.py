"""The only evaluation on the test set: winner, baselines and teachers, after the winner has been selected."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import stdev
from typing import Literal

from torch import nn

from ensdistill.data import DataSplits, load_test
from ensdistill.evaluation.evaluator import Evaluator
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.evaluation.tables import summarize_teachers
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.runtime.files import write_json
from ensdistill.runtime.randomness import deterministic
from ensdistill.runtime.weights import STUDENT_FILE, load_weights
from ensdistill.training.new_student import new_student
from ensdistill_tune.analysis.outcome import SessionOutcome
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.verdict import verdict
from ensdistill_tune.metric_names import confirmed_metric
from ensdistill_tune.records.events import TestEvaluated
from ensdistill_tune.records.result_rows import Diagnostics, NetworkDiagnostics, TestMetrics
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState


def evaluate_on_test(
    progress: StudyState,
    order: Sequence[Candidate],
    data: DataSplits,
    ensemble: TeacherEnsemble,
    *,
    reevaluate_test: bool,
) -> TestEvaluated | None:
    """Evaluates the winner, every baseline and the teachers on the test set.

    No selection of settings or students may depend on the result. Temperatures are fitted on the validation set. The
    result is stored as an event. If the same students were already evaluated, the stored event is returned. If other
    students were evaluated, the test set is evaluated again only if `reevaluate_test` is True.

    Args:
        progress: State of the study, to which the event is appended.
        order: The confirmed candidates, best first.
        data: Splits of the study.
        ensemble: The teachers.
        reevaluate_test: Whether to evaluate the test set again if it was evaluated for other students.

    Returns:
        The event; None if the test set was already evaluated for other students and `reevaluate_test` is False.
    """
    chosen = [order[0], *(c for c in order[1:] if c.trial.baseline)]
    who = [[c.trial.number, *(replicate.seed for replicate in c.replicates)] for c in chosen]
    before = [event for event in progress.past if isinstance(event, TestEvaluated)]
    for event in before:
        if event.who == who:
            return event
    if before and not reevaluate_test:
        return None
    results, diagnostics = _evaluate(progress, chosen, data, ensemble)
    event = TestEvaluated(who=who, results=results, diagnostics=diagnostics)
    progress.append_event(event)
    return event


def _evaluate(
    progress: StudyState, chosen: Sequence[Candidate], data: DataSplits, ensemble: TeacherEnsemble
) -> tuple[list[TestMetrics], Diagnostics]:
    config = progress.study.base_config
    test = load_test(config.data, progress.folder.path.parent).to(data.train.images.device)
    with deterministic(config.training.threads):
        examiner = Evaluator(ensemble.to(data.train.images.device), data, test, config.metrics)
        rows = [_tested(c, [examiner.student(_student(progress, data, r)) for r in c.replicates]) for c in chosen]
        if known := summarize_teachers(examiner.teachers()):
            rows.append(TestMetrics(kind="ensemble", metrics=[dict(known.ensemble)]))
            rows.append(TestMetrics(kind="teacher_mean", metrics=[dict(known.mean)]))
        return rows, _diagnostics("test", progress, chosen, data, examiner)


def _tested(candidate: Candidate, metrics: list[Metrics]) -> TestMetrics:
    return TestMetrics(kind="candidate", trial=candidate.trial.number, metrics=metrics)


def diagnostics_on_validation(
    progress: StudyState, order: Sequence[Candidate], data: DataSplits, ensemble: TeacherEnsemble
) -> Diagnostics:
    """Returns the diagnostics of the best trial and the baselines on the validation set.

    The report uses them if the test set was not evaluated.

    Args:
        progress: State of the study.
        order: The confirmed candidates, best first; empty without a confirmation.
        data: Splits of the study.
        ensemble: The teachers.
    """
    study = progress.study
    trials = study.rank(progress.primary_trials)
    alone = [Candidate(trial, [trial]) for trial in trials]
    some = order or alone
    chosen = [*some[:1], *(c for c in some[1:] if c.trial.baseline)]
    with deterministic(study.base_config.training.threads):
        examiner = Evaluator(ensemble.to(data.train.images.device), data, data.validation)
        return _diagnostics("validation", progress, chosen, data, examiner)


def _diagnostics(
    split: Literal["test", "validation"],
    progress: StudyState,
    chosen: Sequence[Candidate],
    data: DataSplits,
    examiner: Evaluator,
) -> Diagnostics:
    """Returns the diagnostics of the best student of each candidate, followed by those of the ensemble."""
    study = progress.study
    drawn = examiner.diagnostics([_student(progress, data, c.best(study)) for c in chosen])
    own = zip(chosen, drawn["networks"], strict=True)
    networks = [NetworkDiagnostics(kind="candidate", trial=c.trial.number, **row) for c, row in own]
    ensemble = drawn.pop("ensemble")
    networks += [NetworkDiagnostics(kind="ensemble", **ensemble)] if ensemble else []
    return Diagnostics.model_validate({**drawn, "split": split, "networks": networks})


def write_confirmation(
    home: Path,
    study: StudyConfig,
    outcome: SessionOutcome,
    tested: Sequence[TestMetrics],
    earlier: Sequence[Sequence[TestMetrics]],
) -> Path:
    """Writes confirmation.json: verdict, stages, validation metrics of every candidate and seed, and test metrics.

    Args:
        home: The folder of the study.
        study: The settings.
        outcome: The outcome of the session, with at least one confirmed candidate.
        tested: Metrics on the test set.
        earlier: Test metrics of other students, one sequence for each earlier evaluation.

    Returns:
        The path of the file.
    """
    path = home / "confirmation.json"
    rows = [
        {
            "trial": c.trial.number,
            "baseline": c.trial.baseline,
            "settings": dict(c.trial.sampled),
            "schedule": c.trial.schedule,
            "seeds": [replicate.seed for replicate in c.replicates],
            "dropped_for": c.dropped_for,
            "failed": c.failed,
            "validation": {name: c.values(name) for name in study.display_metrics if name in c.replicates[0].last},
            "broken_constraints": c.broken(study),
        }
        for c in outcome.confirmed
    ]
    write_json(
        path,
        {
            "verdict": verdict(outcome.confirmed, study).sentence,
            "stages": [asdict(stage) for stage in outcome.stages],
            "candidates": rows,
            "test": [row.model_dump() for row in tested],
            "earlier_test": [[row.model_dump() for row in some] for some in earlier],
        },
    )
    return path


def confirmation_metrics(candidate: Candidate, study: StudyConfig) -> dict[str, float]:
    """Returns the means and standard deviations of a candidate's validation metrics over its seeds.

    They are logged to the MLflow run of the candidate and, for the winner, also to the parent run.

    Args:
        candidate: A candidate with at least two replicates.
        study: The settings.
    """
    names = [name for name in study.display_metrics if name.startswith("val/")]
    means = {confirmed_metric(name, "mean"): candidate.mean(name) for name in names}
    return means | {confirmed_metric(name, "sd"): stdev(candidate.values(name)) for name in names}


def _student(progress: StudyState, data: DataSplits, replicate: TrialRecord) -> nn.Module:
    config = progress.study.config_for(replicate)
    network = new_student(config, data).merged()
    load_weights(progress.folder.trial(replicate.number) / STUDENT_FILE, network, data.train.images.device)
    return network
