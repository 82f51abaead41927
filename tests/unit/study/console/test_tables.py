"""Tables printed at the end of a session."""

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from ensdistill_tune.console.live import describe_replicates, replicates_per_line
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


def test_the_leaderboard_shows_five_trials_every_baseline_and_the_teachers() -> None:
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
    assert any(line.split()[:4] == ["002", "0.2500", "+-", "0.0707"] for line in lines)


def test_every_objective_and_constraint_is_shown_and_no_metric_twice() -> None:
    own = study(objective="val/ece", secondary_objectives=["cost/flops"], constraints={"val/nll": {"at_most": 1}})
    assert shown_metrics(own, 4) == ["val/ece", "cost/flops", "val/nll", "val/accuracy"]
    assert shown_metrics(own, 1) == ["val/ece", "cost/flops", "val/nll"]


@pytest.mark.parametrize(("candidates", "seeds", "lines"), [(4, 6, 6), (1, 2, 2), (4, 30, 10), (3, 25, 9), (2, 0, 0)])
def test_replicates_are_printed_on_at_most_ten_lines_each_after_a_full_round_of_seeds(
    candidates: int, seeds: int, lines: int
) -> None:
    total = candidates * seeds
    step = replicates_per_line(total, study(confirmation={"top_k": candidates, "seeds": max(seeds, 2)}))
    assert step % candidates == 0 or not total
    assert sum(done == total or done % step == 0 for done in range(1, total + 1)) == lines


def test_the_replicate_line_lists_the_mean_of_each_candidate_from_best_to_worst() -> None:
    replicates = [
        trial(9, 0.4, replicate_of=2, seed=1),
        trial(10, 0.2, replicate_of=1, baseline="kd", seed=1),
        trial(11, 0.6, replicate_of=2, seed=2),
        trial(12, 9.0, replicate_of=2, seed=3, state="failed"),
    ]
    assert describe_replicates(replicates, study()) == "replicates: mean val/nll kd 0.2000, 002 0.5000"
    assert describe_replicates([], study()) == "replicates: none finished"
