"""Data of a study that MLflow shows: standings, saved views, data set, figure."""

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from ensdistill_tune.records.events import SessionEnded
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking.confirmed_figure import confirmed_figure
from ensdistill_tune.tracking.provenance import dataset_input, source_tags
from ensdistill_tune.tracking.standing import description, run_name, standings
from ensdistill_tune.tracking.views import TAG, MlflowPages, views

PAGES = MlflowPages("7", "parent", "s-abc")


def study(seeds: int = 2, **more: Any) -> StudyConfig:
    tree = {"preset": "latentbe", "search": {"loss.temperature": {"log_uniform": [1, 10]}}, "baselines": ["kd"]}
    return StudyConfig.model_validate(tree | {"confirmation": {"top_k": 1, "seeds": seeds}} | more)


def trial(number: int, nll: float, **more: Any) -> TrialRecord:
    metrics = dict.fromkeys(METRICS, 0.5) | {"epoch": 1.0, "epochs": 1.0, "val/nll": nll}
    given = {
        "baseline": None,
        "sampled": {"loss.temperature": 2.0},
        "config_hash": f"{number}",
        "state": "finished",
    } | more
    return TrialRecord(number, epochs=[metrics], **given)


KD = {"baseline": "kd", "sampled": {}}
SEARCH = {1: trial(1, 0.3, **KD), 2: trial(2, 0.2), 3: trial(3, 0.4)}
REPLICATES = {
    4: trial(4, 0.3, replicate_of=2, seed=1),
    5: trial(5, 0.5, replicate_of=2, seed=2),
    6: trial(6, 0.25, replicate_of=1, seed=1, **KD),
    7: trial(7, 0.35, replicate_of=1, seed=2, **KD),
}


def test_the_winner_has_the_best_mean_over_fresh_seeds_and_is_not_the_best_search_trial() -> None:
    found = standings(SEARCH | REPLICATES, SessionEnded(state="finished", best=1), study())
    assert {number: own.result for number, own in found.items()} == {1: "winner", 2: "confirmed"}
    assert found[1].sentence == "**Winner of the study.** val/nll 0.3000 +- 0.0707 over 2 fresh seeds."
    assert found[2].sentence == "Confirmed, place 2 of 2. val/nll 0.4000 +- 0.1414 over 2 fresh seeds."


def test_the_standing_of_a_dropped_candidate_states_its_number_of_seeds_and_a_better_candidate() -> None:
    replicates = {n: trial(n, 0.5, replicate_of=2, seed=n - 3) for n in (4, 5, 6)}
    replicates |= {n: trial(n, 0.25 + n / 1000, replicate_of=1, seed=n - 6, **KD) for n in (7, 8, 9)}
    found = standings(SEARCH | replicates, SessionEnded(state="finished", best=7), study(seeds=6))
    sentence = "Confirmed, place 2 of 2. val/nll 0.5000 +- 0.0000 over 3 fresh seeds"
    assert found[2].sentence == f"{sentence}; dropped after 3 seeds, behind baseline kd."


def test_without_a_confirmation_the_best_trial_is_marked_as_unconfirmed() -> None:
    own = study(confirmation={"top_k": 0})
    found = standings(SEARCH, SessionEnded(state="finished", best=2), own)
    assert {number: one.result for number, one in found.items()} == {2: "best of the search"}
    assert found[2].sentence.endswith("val/nll 0.2000 with a single seed; not confirmed.")


@pytest.mark.parametrize("state", ["interrupted", "timed_out", "failed"])
def test_a_study_that_has_not_finished_has_no_standings(state: str) -> None:
    assert standings(SEARCH | REPLICATES, SessionEnded(state=state, best=2), study()) == {}


def test_a_candidate_that_violates_a_constraint_is_never_the_winner() -> None:
    bound = study(constraints={"val/nll": {"at_most": 0.1}})
    found = standings(SEARCH | REPLICATES, SessionEnded(state="finished"), bound)
    assert {own.result for own in found.values()} == {"confirmed"}
    assert all("breaks val/nll" in own.sentence for own in found.values())


def test_a_run_name_starts_with_the_trial_number_and_marks_the_winner() -> None:
    assert run_name(SEARCH[2], "winner") == "002 WINNER temperature=2"
    assert run_name(SEARCH[2], "confirmed") == SEARCH[2].name


def test_every_kind_of_trial_has_a_description() -> None:
    assert description(REPLICATES[4]).startswith("Replicate of trial 002 with seed 1")
    assert description(REPLICATES[6]).startswith("Replicate of baseline kd with seed 1")
    assert description(SEARCH[1]).startswith("Baseline: the published settings of `kd`")
    assert description(SEARCH[3]) == "Trial of the search, with one seed."


def test_the_saved_views_put_the_winner_first_and_group_replicates_by_candidate() -> None:
    states = {tag.removeprefix(TAG): json.loads(text) for tag, text in views(PAGES, study(), confirmed=True).items()}
    assert set(states) == {"s-abc", "s-abc-seeds", "studies"}
    before = json.loads(views(PAGES, study())[f"{TAG}s-abc"])
    assert (before["orderByKey"], before["orderByAsc"]) == ("metrics.`final/nll`", True)
    assert (states["s-abc"]["orderByKey"], states["s-abc"]["orderByAsc"]) == ("metrics.`confirmed/mean_nll`", True)
    assert "tags.`result`" in states["s-abc"]["selectedColumns"]
    assert [chart["metricKey"] for chart in states["s-abc"]["compareRunCharts"][1:]] == ["val/nll", "replicates/nll"]
    assert states["s-abc-seeds"]["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "candidate"}]
    assert all(len(text) < 5000 for text in views(PAGES, study()).values())


def test_the_charts_of_a_view_have_distinct_identifiers() -> None:
    charts = json.loads(views(PAGES, study())[f"{TAG}s-abc"])["compareRunCharts"]
    assert len({chart["uuid"] for chart in charts}) == len(charts)


def test_source_tags_contain_the_git_commit_of_the_code() -> None:
    assert source_tags({"git_commit": "abc"})["mlflow.source.git.commit"] == "abc"
    assert "mlflow.source.git.commit" not in source_tags({"data_hash": "x"})


def test_the_digest_of_the_data_set_is_the_hash_of_its_images() -> None:
    made = dataset_input(study(config={"data": {"kind": "digits", "val_size": 100}}), "0123456789abcdef" * 4)
    assert (made.dataset.name, made.dataset.digest) == ("digits", "0123456789abcdef0123456789abcdef0123")
    assert json.loads(made.dataset.profile)["val_size"] == 100
    assert [(tag.key, tag.value) for tag in made.tags] == [("mlflow.data.context", "training")]


def test_the_figure_shows_means_at_the_correct_positions_on_the_axis() -> None:
    root = ElementTree.fromstring(confirmed_figure("val/nll", {"a <b>": [0.1, 0.3], "c": [0.2, 0.2]}))  # noqa: S314
    space = "{http://www.w3.org/2000/svg}"
    dots = [float(dot.attrib["cx"]) for dot in root.iter(f"{space}circle")]
    assert dots[2] == dots[3] == pytest.approx((dots[0] + dots[1]) / 2)
    means = [line.attrib for line in root.iter(f"{space}line") if line.attrib["class"] == "mean"]
    assert float(means[1]["x1"]) == pytest.approx(dots[2])
    half = (float(means[0]["x2"]) - float(means[0]["x1"])) / 2
    assert half == pytest.approx((dots[1] - dots[0]) / 2**0.5, rel=0.01)  # the standard deviation of two values
    assert [text.text for text in root.iter(f"{space}text") if text.text and "<" in text.text] == ["a <b>"]


def test_a_figure_of_a_single_value_can_be_drawn() -> None:
    assert not re.search("nan|inf", confirmed_figure("val/nll", {"a": [0.2]}))
