"""The one look at the test images: confirmed winner, baselines and teachers, after everything is decided."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import stdev
from typing import Any

from torch import nn

from ensdistill.data import Data, load_test
from ensdistill.distill import new_student
from ensdistill.evaluation import Examiner, Row
from ensdistill.files import write_json
from ensdistill.members import Ensemble
from ensdistill.randomness import reproducibly
from ensdistill.tables import teacher_rows
from ensdistill.weights import STUDENT_FILE, load_weights
from ensdistill_tune.comparison import confirmed_metric
from ensdistill_tune.confirm import Candidate, verdict
from ensdistill_tune.progress import Progress
from ensdistill_tune.record import METRICS, TrialRecord, ranked
from ensdistill_tune.space import Study

Tested = dict[str, list[Row]]  # rows of metrics on the test images, one a seed, by who was looked at


@dataclass(frozen=True)
class Look:
    """What was seen on images."""

    results: Tested = field(default_factory=dict)
    portraits: dict[str, Any] = field(default_factory=dict)  # for the report; empty in journals of earlier versions


def final_test(
    progress: Progress, order: Sequence[Candidate], data: Data, ensemble: Ensemble, *, look_again: bool
) -> Look | None:
    """The winner and every baseline on the test images, then the teachers. Nothing may be chosen by this.

    order: the confirmed candidates, best first. Temperatures are fitted on validation. The look is written down: the
    same students give the same answer from the journal, and others are refused (None) unless `look_again` says so.
    """
    chosen = [order[0], *(c for c in order[1:] if c.trial.baseline)]
    who = [[c.trial.number, *(repeat.seed for repeat in c.repeats)] for c in chosen]
    before = [event for event in progress.past if event["event"] == "looked"]
    for event in before:
        if event["who"] == who:
            return Look(dict(event["results"]), event.get("portraits", {}))
    if before and not look_again:
        return None
    look = _look(progress, chosen, data, ensemble)
    progress.happens("looked", who=who, results=look.results, portraits=look.portraits)
    return look


def _look(progress: Progress, chosen: Sequence[Candidate], data: Data, ensemble: Ensemble) -> Look:
    config = progress.study.fixed_config
    test = load_test(config.data).to(data.train.images.device)
    with reproducibly(config.training.threads):
        examiner = Examiner(ensemble.to(data.train.images.device), data, test)
        rows = {c.label: [examiner.student(_student(progress, data, r)) for r in c.repeats] for c in chosen}
        rows |= {who: [dict(row)] for who, row in teacher_rows(examiner.teachers()).items()}
        portraits = examiner.portraits(_shipped(progress, chosen, data))
    return Look(rows, {"split": "test"} | portraits)


def portraits_on_validation(
    progress: Progress, order: Sequence[Candidate], data: Data, ensemble: Ensemble
) -> dict[str, Any]:
    """The portraits of a study that has not looked at the test images, of the best trial and the baselines."""
    study = progress.study
    trials = ranked(progress.searched, study.objective, study.mode)
    alone = [Candidate(trial, [trial]) for trial in trials]
    some = order or alone
    chosen = [*some[:1], *(c for c in some[1:] if c.trial.baseline)]
    with reproducibly(study.fixed_config.training.threads):
        examiner = Examiner(ensemble.to(data.train.images.device), data, data.validation)
        return {"split": "validation"} | examiner.portraits(_shipped(progress, chosen, data))


def _shipped(progress: Progress, chosen: Sequence[Candidate], data: Data) -> dict[str, nn.Module]:
    """Of each candidate the one student that ships, or would."""
    study = progress.study
    return {c.label: _student(progress, data, c.best(study.objective, study.mode)) for c in chosen}


def write_confirmation(
    home: Path, study: Study, order: Sequence[Candidate], tested: Tested, earlier: Sequence[Tested]
) -> Path:
    """confirmation.json: every candidate seed by seed on validation, the verdict, and the test metrics.

    earlier: those of other students, if the images were looked at before and are not looked at again.
    """
    path = home / "confirmation.json"
    rows = [
        {
            "trial": c.trial.number,
            "baseline": c.trial.baseline,
            "settings": dict(c.trial.sampled),
            "changes": c.trial.changes,
            "seeds": [repeat.seed for repeat in c.repeats],
            "validation": {name: c.values(name) for name in METRICS},
        }
        for c in order
    ]
    write_json(
        path,
        {
            "verdict": verdict(order, study.objective, study.mode),
            "candidates": rows,
            "test": tested,
            "earlier_test": list(earlier),
        },
    )
    return path


def confirmed_figures(candidate: Candidate) -> dict[str, float]:
    """Mean and spread of a candidate over its seeds, as metrics of its run and, if it won, of the parent run."""
    means = {confirmed_metric(name, "mean"): candidate.mean(name) for name in METRICS}
    return means | {confirmed_metric(name, "sd"): stdev(candidate.values(name)) for name in METRICS}


def _student(progress: Progress, data: Data, repeat: TrialRecord) -> nn.Module:
    config = progress.study.config_of(repeat)
    network = new_student(config, data).merged()
    load_weights(progress.folder.trial(repeat.number) / STUDENT_FILE, network, data.train.images.device)
    return network
