"""The one look at the test images: confirmed winner, baselines and teachers, after everything is decided."""

from collections.abc import Sequence
from pathlib import Path
from statistics import stdev

from torch import nn

from ensdistill.data import Data, load_test
from ensdistill.distill import new_student
from ensdistill.evaluation import Examiner, Row
from ensdistill.files import write_json
from ensdistill.members import Ensemble
from ensdistill.randomness import reproducibly
from ensdistill.tables import teacher_rows
from ensdistill.weights import STUDENT_FILE, load_weights
from tune.confirm import Candidate, verdict
from tune.record import METRICS, TrialRecord
from tune.space import Study

Tested = dict[str, list[Row]]  # rows of metrics on the test images, one a seed, by who was looked at


def final_test(study: Study, order: Sequence[Candidate], data: Data, ensemble: Ensemble) -> Tested:
    """The winner and every baseline on the test images, then the teachers.

    order: the confirmed candidates, best first. Temperatures are fitted on validation. Nothing may be chosen by this.
    """
    config = study.fixed_config
    device = data.train.images.device
    test = load_test(config.data).to(device)
    chosen = [order[0], *(c for c in order[1:] if c.trial.baseline)]
    with reproducibly(config.training.threads):
        examiner = Examiner(ensemble.to(device), data, test)
        rows = {c.label: [examiner.student(_student(study, data, r)) for r in c.repeats] for c in chosen}
        return rows | {who: [dict(row)] for who, row in teacher_rows(examiner.teachers()).items()}


def write_confirmation(home: Path, study: Study, order: Sequence[Candidate], tested: Tested) -> Path:
    """confirmation.json: every candidate seed by seed on validation, the verdict, and the test metrics."""
    path = home / "confirmation.json"
    rows = [
        {
            "trial": c.trial.number,
            "baseline": c.trial.baseline,
            "settings": dict(c.trial.sampled),
            "seeds": [repeat.seed for repeat in c.repeats],
            "validation": {name: c.values(name) for name in METRICS},
        }
        for c in order
    ]
    write_json(path, {"verdict": verdict(order, study.objective, study.mode), "candidates": rows, "test": tested})
    return path


def confirmed_figures(order: Sequence[Candidate]) -> dict[str, float]:
    """Mean and spread of the winner over its seeds, as metrics of the parent run."""
    means = {name.replace("val/", "confirmed/mean_"): order[0].mean(name) for name in METRICS}
    return means | {name.replace("val/", "confirmed/sd_"): stdev(order[0].values(name)) for name in METRICS}


def _student(study: Study, data: Data, repeat: TrialRecord) -> nn.Module:
    config = study.config_of(repeat.baseline, repeat.sampled, repeat.seed)
    network = new_student(config, data).merged()
    load_weights(Path(repeat.checkpoint or "") / STUDENT_FILE, network, data.train.images.device)
    return network
