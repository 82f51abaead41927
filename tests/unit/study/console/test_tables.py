"""Tables printed at the end of a session."""

import io
from typing import Any

from rich.console import Console
from rich.table import Table

from ensdistill_tune.analysis.confirmation import Stage
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.console.live import describe_stage
from ensdistill_tune.console.tables import OVER_SEEDS, leaderboard_table, seeds_table, shown_metrics
from ensdistill_tune.formatting import WIDTH
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

SETTINGS = {"perturbation.step_size": 0.0163, "student.subnetworks": 3, "loss.temperature": 1.53}
SETTINGS |= {"averaging.kind": "ema", "training.lr_schedule": "cosine", "averaging.decay": 0.972}
TEACHERS = {"ensemble of 4 teachers": {"nll": 0.6787, "accuracy": 0.771, "ece": 0.0649}}


def study(**more: Any) -> StudyConfig:
    tree = {"preset": "latentbe", "search": {"loss.temperature": {"log_uniform": [1, 10]}}, "baselines": ["kd"]}
    return StudyConfig.model_validate(tree | more)


def trial(number: int, nll: float, **more: Any) -> TrialRecord:
    metrics = dict.fromkeys(METRICS, 0.5) | {"epoch": 10.0, "epochs": 10.0, "val/nll": nll, "cost/flops": 1e6}
    given = {"baseline": None, "sampled": SETTINGS, "config_hash": "", "state": "finished"} | more
    return TrialRecord(number, epochs=[metrics], **given)


def lines_of(table: Table) -> list[str]:
    console = Console(file=io.StringIO(), width=WIDTH)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


TRIALS = [trial(1, 0.9, baseline="kd", sampled={}), *(trial(n, n / 10) for n in range(2, 9))]


def test_the_leaderboard_shows_the_five_best_trials_and_all_baselines_and_the_teachers() -> None:
    lines = lines_of(leaderboard_table(study(), TRIALS, TEACHERS))
    firsts = [line.split()[:2] for line in lines if line.strip() and line[:4].strip().isdecimal()]
    assert firsts == [["1", "002"], ["2", "003"], ["3", "004"], ["4", "005"], ["5", "006"], ["8", "baseline"]]
    (head,) = [line.split() for line in lines if "rank" in line]
    assert head == ["rank", "trial", "nll", "accuracy", "ece", "settings"]
    assert any(line.split()[-3:] == ["0.6787", "0.7710", "0.0649"] for line in lines)


def test_no_setting_and_no_metric_is_truncated_at_100_columns() -> None:
    lines = lines_of(leaderboard_table(study(secondary_objectives=["cost/flops"]), TRIALS, TEACHERS))
    assert max(map(len, lines)) <= WIDTH
    text = " ".join(" ".join(lines).split())
    for word in ("step_size=0.0163", "subnetworks=3", "averaging=ema", "lr_schedule=cosine", "decay=0.972", "1M"):
        assert word in text


def test_four_metrics_with_standard_deviations_fit_in_100_columns() -> None:
    names = shown_metrics(study(), OVER_SEEDS)
    rows = {"ensemble of 4 teachers": [trial(1, 0.2).last], "002": [trial(2, value).last for value in (0.2, 0.3)]}
    lines = lines_of(seeds_table("confirmation", rows, names, "trial"))
    assert max(map(len, lines)) <= WIDTH
    assert any(line.split()[:5] == ["002", "(2)", "0.2500", "+-", "0.0707"] for line in lines)


def test_every_objective_and_constraint_is_shown_and_no_metric_is_shown_twice() -> None:
    own = study(objective="val/ece", secondary_objectives=["cost/flops"], constraints={"val/nll": {"at_most": 1}})
    assert shown_metrics(own, 4) == ["val/ece", "cost/flops", "val/nll", "val/accuracy"]
    assert shown_metrics(own, 1) == ["val/ece", "cost/flops", "val/nll"]


def test_the_line_for_a_stage_lists_means_from_best_to_worst_and_dropped_candidates_or_the_decision() -> None:
    kd = Candidate(trial(1, 0.3, baseline="kd"), [trial(9, 0.3, seed=1), trial(10, 0.5, seed=2)])
    best = Candidate(trial(2, 0.3), [trial(11, 0.1, seed=1), trial(12, 0.2, seed=2)])
    out = Candidate(trial(3, 0.3), [trial(13, 0.6, seed=1)], dropped_for=2)
    early, late = Stage(1, 2, 1, -0.2, dropped={3: 2}), Stage(2, 2, 1, -0.25, "better")
    lines = [describe_stage(stage, [best, kd, out], study()) for stage in (early, late)]
    assert lines == [
        "after 1 seed: mean val/nll 002 0.1000, kd 0.3000, 003 0.6000; dropped: 003",
        "after 2 seeds: mean val/nll 002 0.1500, kd 0.4000; decided: 002 is better",
    ]
