"""A synthetic study whose trials follow known rules, so that statements of a report about it can be checked.

The final NLL of a search trial depends, in order of strength (see `planted`), on the step size (best at 0.02), on
whether weights are averaged, and on the temperature. The number of subnetworks and the decay and start of the average
have no effect.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.records.result_rows import Diagnostics, TestMetrics
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

SEARCH: dict[str, Any] = {
    "perturbation.step_size": {"log_uniform": [0.002, 0.2]},
    "loss.temperature": {"uniform": [1, 10]},
    "student.subnetworks": {"integer": [2, 8]},
    "averaging.kind": {"choice": ["none", "ema"]},
    "averaging.decay": {"uniform": [0.8, 0.99], "when": {"averaging.kind": "ema"}},
    "averaging.start": {"uniform": [0.0, 0.8], "when": {"averaging.kind": "ema"}},
}
PIXEL = (  # a PNG of a single pixel
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
EPOCHS, RUNGS = 30, (6, 12, 24)
PARAMETERS, FLOPS = 24_058.0, 314_624.0
TEACHERS = ("ensemble of 4 teachers", "one teacher (mean)")


def study(**more: Any) -> StudyConfig:
    """Returns a study with six hyperparameters, two baselines, and early stopping at epochs 6, 12 and 24 of 30."""
    return StudyConfig.model_validate(
        {
            "preset": "latentbe",
            "config": {"data": {"kind": "digits"}, "training": {"epochs": EPOCHS}},
            "search": SEARCH,
            "baselines": ["kd", "latentbe"],
            "scheduler": {"kind": "asha", "grace_epochs": RUNGS[0], "reduction_factor": 2},
            **more,
        }
    )


def planted(sampled: dict[str, Any], chance: np.random.Generator, noise: float = 0.01) -> float:
    """Returns the final NLL for these settings."""
    from_best = math.log10(sampled["perturbation.step_size"] / 0.02)
    average = 0.03 * (sampled["averaging.kind"] == "none")
    return 0.1 + 0.1 * from_best**2 + average + 0.002 * sampled["loss.temperature"] + noise * chance.normal()


def facts(
    trials: int = 60, *, seed: int = 0, noise: float = 0.01, seeds: int = 5, costs: bool = False, **more: Any
) -> StudyResults:
    """Returns the results of a finished study with the given number of search trials.

    Args:
        trials: Number of search trials.
        seed: Seed of all random numbers.
        noise: Standard deviation of the noise in the final NLL.
        seeds: Number of confirmation seeds; 0 for no confirmation.
        costs: Whether the costs of the students differ.
        more: Further settings of the study.
    """
    chance = np.random.default_rng(seed)
    own = study(confirmation={"top_k": 3 if seeds else 0, "seeds": seeds or 2}, **more)
    records = [_baseline(n, name, chance) for n, name in enumerate(own.baselines, 1)]
    finals: dict[int, list[float]] = {rung: [] for rung in RUNGS}
    for number in range(len(records) + 1, len(records) + 1 + trials):
        sampled = own.space.draw(lambda _, axis: axis.from_unit_interval(chance.random()))
        record = TrialRecord(number, None, sampled, f"hash{number}")
        flops = FLOPS * chance.choice([0.5, 1, 2]) if costs else FLOPS
        values = list(_curve(planted(sampled, chance, noise) + (FLOPS / flops - 1) * 0.02, chance))
        records.append(_ends(record, values, flops, finals, own.scheduler.kind != "none"))
    replicates = list(_repeats(own, records, chance)) if seeds else []
    confirmation = confirmation_of(records, replicates, own)
    confirmed = confirmation.candidates
    summary = {"name": "synthetic", "state": "finished", "seconds": 1234.5, "teachers": teachers()}
    return StudyResults(
        "synthetic",
        own,
        summary,
        records,
        replicates,
        confirmed,
        confirmation.stages,
        _tested(confirmed),
        1,
        diagnostics(confirmed),
    )


def reports(values: Sequence[float], flops: float = FLOPS) -> list[dict[str, float]]:
    """Returns the reports of a trial with these NLL values after its epochs."""
    return [
        {
            "epoch": float(epoch),
            "epochs": float(EPOCHS),
            "train/loss": 2 * value,
            **metrics(value),
            "cost/parameters": PARAMETERS,
            "cost/flops": flops,
            "time/epoch_seconds": 0.1,
        }
        for epoch, value in enumerate(values, 1)
    ]


def metrics(nll: float) -> dict[str, float]:
    """Returns all validation metrics of a network with this NLL."""
    row = {"nll": nll, "accuracy": 1 - nll / 3, "brier": nll / 2, "ece": nll / 5, "cnll": 0.9 * nll}
    return {f"val/{name}": value for name, value in row.items()} | {"val/dee": 1 + 3 * min(1, 0.1 / nll)}


def teachers() -> dict[str, Any]:
    """Returns the entry of study.json for four teachers: each alone has an NLL of 0.18, the ensemble has 0.11."""
    together, alone = ({name.removeprefix("val/"): v for name, v in metrics(nll).items()} for nll in (0.11, 0.18))
    alone |= {"parameters": PARAMETERS, "flops": FLOPS}
    together |= {"parameters": 4 * PARAMETERS, "flops": 4 * FLOPS, "diversity": 0.15, "mutual_information": 0.04}
    return {"ensemble": together, "members": [alone] * 4, "curve": [0.16, 0.13, 0.11, 0.1]}


def diagnostics(confirmed: Sequence[Candidate]) -> Diagnostics | None:
    """Returns reliability in 15 bins, where bins of low confidence are empty, and disagreement in ten groups."""
    chance = np.random.default_rng(0)
    shape = np.linspace(0, 1, 10) ** 3
    first, *others = [c.trial.number for c in _looked_at(confirmed)] or [0]
    numbers = [first, *sorted(others)]  # the best baseline is not the first
    subjects = [*(("candidate", number) for number in numbers), ("ensemble", None)]
    drawn = [
        {
            "kind": kind,
            "trial": number,
            "ece": 0.02 + 0.01 * n,
            "reliability": _bins(n, chance),
            "entropy": (0.05 + (1.2 - 0.2 * n) * shape).tolist(),
            "class_accuracy": [0.9 - 0.01 * n, 0.8, None],
            "confusion": [[90 - n, 10, n], [20, 80, 0]],
        }
        for n, (kind, number) in enumerate(subjects)
    ]
    known = {"split": "test", "images": 700, "teachers": (0.4 * shape).tolist(), "networks": drawn}
    known |= {"class_names": ["cat", "<b>dog</b>", "none"], "confused": [0, 1]}
    image = {"index": 7, "label": 0, "value": 3.2, "student": (1, 0.91), "ensemble": (0, 0.8), "thumbnail": PIXEL}
    known |= {"wrong": [image], "disputed": [image | {"index": 8, "label": 1}]}
    return Diagnostics.model_validate(known) if confirmed else None


def _looked_at(confirmed: Sequence[Candidate]) -> list[Candidate]:
    """Returns the winner and the baselines."""
    return [*confirmed[:1], *(c for c in confirmed[1:] if c.trial.baseline)]


def _bins(n: int, chance: np.random.Generator) -> list[list[float]]:
    sizes = [4, 6, 9, 14, 22, 30, 45, 70, 200, 300]
    middles = [(bin_ + 0.5) / 15 for bin_ in range(5, 15)]
    return [[m, min(1.0, m + 0.02 * n + 0.03 * chance.normal()), size] for m, size in zip(middles, sizes, strict=True)]


def _baseline(number: int, name: str, chance: np.random.Generator) -> TrialRecord:
    values = list(_curve({"kd": 0.16}.get(name, 0.14), chance))
    return TrialRecord(number, name, {}, f"hash{number}", "finished", reports(values))


def _curve(final: float, chance: np.random.Generator) -> Iterator[float]:
    """Yields values after every epoch, which decrease to the exact final value."""
    for epoch in range(1, EPOCHS + 1):
        shaken = 1 + 0.02 * chance.normal() * (epoch < EPOCHS)
        yield (final + 2 * (math.exp(-epoch / 4) - math.exp(-EPOCHS / 4))) * shaken


def _ends(
    record: TrialRecord, values: list[float], flops: float, came: dict[int, list[float]], stopping: bool
) -> TrialRecord:
    """Ends every 20th trial by divergence after two epochs, and others at rungs where the median so far is better."""
    if record.number % 20 == 0:
        return replace(record, state="failed", epochs=reports(values[:2], flops), error="the loss is not finite")
    for rung in RUNGS if stopping else ():
        came[rung].append(values[rung - 1])
        if values[rung - 1] > np.median(came[rung]):
            return replace(record, state="pruned", epochs=reports(values[:rung], flops))
    return replace(record, state="finished", epochs=reports(values, flops))


def _repeats(own: StudyConfig, records: list[TrialRecord], chance: np.random.Generator) -> Iterator[TrialRecord]:
    """Runs the confirmation; values of the same candidate differ by noise with standard deviation 0.004."""
    done: list[TrialRecord] = []
    while todo := confirmation_of(records, done, own).todo:
        for of, seed in todo:
            final = of.last["val/nll"] + 0.004 * chance.normal()
            epochs = reports(list(_curve(final, chance)), of.last["cost/flops"])
            number, about = len(records) + len(done) + 1, (of.baseline, of.sampled, of.config_hash)
            done.append(TrialRecord(number, *about, "finished", epochs, replicate_of=of.number, seed=seed))
    yield from done


def _tested(confirmed: Sequence[Candidate]) -> list[TestMetrics]:
    """Returns test metrics of winner, baselines (one row per seed) and teachers; none without confirmation."""
    if not confirmed:
        return []
    rows = [
        TestMetrics(
            kind="candidate",
            trial=c.trial.number,
            metrics=[_row(0.12 + 0.02 * n + 0.002 * k) for k in range(len(c.replicates))],
        )
        for n, c in enumerate(_looked_at(confirmed))
    ]
    teachers = [("ensemble", 0.11), ("teacher_mean", 0.18)]
    return rows + [TestMetrics.model_validate({"kind": kind, "metrics": [_row(nll)]}) for kind, nll in teachers]


def _row(nll: float) -> dict[str, float]:
    return {name.removeprefix("val/"): value for name, value in metrics(nll).items()}
