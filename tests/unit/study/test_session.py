"""A complete study with the real commands, Ray, Optuna and MLflow."""

import csv
import json
import math
import re
import statistics
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors import safe_open

from ensdistill.config import flatten, load_config
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import TrialRecord
from tests.commands import call
from tests.tiny import TinyStudy


@pytest.fixture(scope="module")
def trials(tiny: TinyStudy) -> list[TrialRecord]:
    return [trial for trial in StudyDirectory(tiny.home).read_trials() if trial.replicate_of is None]


@pytest.fixture(scope="module")
def replicates(tiny: TinyStudy) -> list[TrialRecord]:
    return [trial for trial in StudyDirectory(tiny.home).read_trials() if trial.replicate_of is not None]


@pytest.fixture(scope="module")
def client(tiny: TinyStudy) -> MlflowClient:
    return MlflowClient(tiny.summary["tracking_uri"])


@pytest.fixture(scope="module")
def parent(client: MlflowClient, tiny: TinyStudy) -> Run:
    experiment = client.get_experiment_by_name("ensdistill").experiment_id
    (run,) = client.search_runs([experiment], f"tags.study_id = '{tiny.summary['study_id']}' and tags.kind = 'study'")
    return run


@pytest.fixture(scope="module")
def runs(client: MlflowClient) -> dict[str, Run]:
    experiment = client.get_experiment_by_name("ensdistill").experiment_id
    found = client.search_runs([experiment], filter_string="tags.kind = 'trial'")
    return {run.info.run_name.replace(" WINNER ", " "): run for run in found}


def test_the_study_completes_although_some_trials_fail(tiny: TinyStudy, trials: list[TrialRecord]) -> None:
    assert tiny.done.code == 0, tiny.done.err
    assert tiny.summary["state"] == "finished"
    assert len(trials) == 10
    assert {"finished", "pruned", "failed"} == {trial.state for trial in trials}


def test_the_error_of_a_diverged_trial_states_the_epoch_and_the_step(trials: list[TrialRecord]) -> None:
    errors = [trial.error for trial in trials if trial.state == "failed"]
    assert errors
    assert all("the loss became" in (e or "") and "epoch 1, step" in (e or "") for e in errors)


def test_exactly_the_trials_with_a_diverging_learning_rate_fail(trials: list[TrialRecord]) -> None:
    doomed = [trial.number for trial in trials if trial.sampled.get("training.optimizer.lr") == 100.0]
    assert doomed == [trial.number for trial in trials if trial.state == "failed"]


def test_baselines_run_first_and_are_never_stopped(trials: list[TrialRecord]) -> None:
    assert [(trial.number, trial.baseline, trial.state) for trial in trials[:2]] == [
        (1, "kd", "finished"),
        (2, "latentbe", "finished"),
    ]


def test_conditional_settings_are_sampled_only_if_their_condition_holds(trials: list[TrialRecord]) -> None:
    for trial in trials[2:]:
        assert ("averaging.decay" in trial.sampled) == (trial.sampled["averaging.kind"] == "ema")


def test_a_pruned_trial_is_stopped_before_its_last_epoch(trials: list[TrialRecord]) -> None:
    assert all(trial.last["epoch"] < trial.last["epochs"] for trial in trials if trial.state == "pruned")
    assert all(trial.last["epoch"] == 6 for trial in trials if trial.state == "finished")


def test_every_trial_has_one_child_run_with_the_correct_status(
    parent: Run, trials: list[TrialRecord], runs: dict[str, Run]
) -> None:
    expected = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    assert len(runs) == len(trials)
    for trial in trials:
        run = runs[trial.name]
        assert run.info.status == expected[trial.state]
        assert run.data.tags["outcome"] == trial.state
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_mlflow_contains_each_epoch_once(client: MlflowClient, trials: list[TrialRecord], runs: dict[str, Run]) -> None:
    for trial in trials:
        history = client.get_metric_history(runs[trial.name].info.run_id, "val/nll")
        logged = sorted((point.step, point.value) for point in history)
        assert logged == [(int(epoch["epoch"]), epoch["val/nll"]) for epoch in trial.epochs]


def test_mlflow_contains_all_settings_under_their_dotted_names(
    runs: dict[str, Run], trials: list[TrialRecord], parent: Run
) -> None:
    """Runs of trials have the settings of the method and of the study file; the parent run has the rest."""
    every = set(flatten(load_config("kd").model_dump(mode="json")))
    own, shared = set(runs[trials[0].name].data.params), set(parent.data.params)
    assert every <= own | shared
    assert {"seed", "student.kind", "loss.temperature", "training.optimizer.lr", "training.epochs"} <= own
    assert not {"training.optimizer.momentum", "teachers.training.optimizer.lr", "model.kind"} & own
    assert parent.data.params["teachers.training.optimizer.lr"] == "0.1"
    sampled = next(trial for trial in trials if "averaging.decay" in trial.sampled)
    params = runs[sampled.name].data.params
    assert params["averaging.decay"] == str(sampled.sampled["averaging.decay"])
    expected = math.log10(sampled.sampled["loss.temperature"])
    assert float(params["loss.temperature.log10"]) == pytest.approx(expected, abs=1e-4)


def test_every_run_is_tagged_with_its_kind(
    client: MlflowClient, tiny: TinyStudy, trials: list[TrialRecord], replicates: list[TrialRecord]
) -> None:
    (experiment,) = {run.info.experiment_id for run in client.search_runs(["1"], max_results=1)}
    found = {run.data.tags["trial"]: run.data.tags for run in client.search_runs([experiment])}
    for name in ("study_hash", "data_hash", "ensemble_hash"):
        assert {tags[name] for tags in found.values()} == {tiny.summary[name]}
    assert {tags.get("git_commit") for tags in found.values()} == {tiny.summary["git_commit"]}
    assert [found[str(n)]["preset"] for n in (1, 2, 3)] == ["kd", "latentbe", "latentbe"]
    assert [found[str(n)].get("baseline") for n in (1, 2, 3)] == ["kd", "latentbe", None]
    for replicate in replicates:
        tags = found[str(replicate.number)]
        assert tags["seed"] == str(replicate.seed)
        assert tags["seed_group"] == found[str(replicate.replicate_of)]["seed_group"]
    assert len({found[str(trial.number)]["seed_group"] for trial in trials}) == len(trials)


def test_the_mlflow_run_of_every_confirmed_trial_contains_the_mean_over_its_seeds(
    runs: dict[str, Run], tiny: TinyStudy, trials: list[TrialRecord], parent: Run
) -> None:
    rows = json.loads((tiny.home / "confirmation.json").read_text())["candidates"]
    means = {row["trial"]: statistics.fmean(row["validation"]["val/nll"]) for row in rows}
    spreads = {row["trial"]: statistics.stdev(row["validation"]["val/nll"]) for row in rows}
    for trial in trials:
        metrics = runs[trial.name].data.metrics
        assert metrics.get("confirmed/mean_nll") == means.get(trial.number)
        assert metrics.get("confirmed/sd_nll") == spreads.get(trial.number)
    assert parent.data.metrics["confirmed/mean_nll"] == min(means.values())


def test_the_report_exists_and_its_path_is_printed(tiny: TinyStudy) -> None:
    assert f"report:         {tiny.home / 'report.html'}" in tiny.done.out


def test_the_description_of_the_parent_run_contains_the_result_and_links(tiny: TinyStudy, parent: Run) -> None:
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("[Compare the trials](#/experiments/")
    lines = re.findall(r"^- .*$", (tiny.home / "report.md").read_text(), re.MULTILINE)
    assert note.endswith("\n\n" + "\n".join(lines))


def test_only_completed_trials_have_final_metrics(runs: dict[str, Run], trials: list[TrialRecord]) -> None:
    for trial in trials:
        assert ("final/nll" in runs[trial.name].data.metrics) == (trial.state == "finished")


def test_the_parent_run_contains_teacher_metrics_and_study_files(
    client: MlflowClient, tiny: TinyStudy, parent: Run
) -> None:
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["teachers/ensemble_nll"] == tiny.summary["teachers"]["ensemble"]["nll"]
    stored = {file.path for file in client.list_artifacts(parent.info.run_id)}
    files = {"best", "confirmation.json", "leaderboard.csv", "study.json"}
    assert stored == files | {"report.html", "report.md", "figures"}
    best = {file.path for file in client.list_artifacts(parent.info.run_id, "best")}
    assert best == {"best/config.yaml", "best/student.safetensors"}
    assert "figures/importance.html" in {file.path for file in client.list_artifacts(parent.info.run_id, "figures")}


def test_the_printed_link_refers_to_an_existing_mlflow_view(client: MlflowClient, tiny: TinyStudy) -> None:
    experiment, key = client.get_experiment_by_name("ensdistill"), f"tiny-{tiny.summary['study_id'][:6]}"
    link = f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={key}"
    assert link in tiny.done.out
    state = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    assert "params.`loss.temperature`" in state["selectedColumns"]


def test_the_leaderboard_is_ordered_and_complete(tiny: TinyStudy, trials: list[TrialRecord]) -> None:
    rows = list(csv.DictReader((tiny.home / "leaderboard.csv").open()))
    values = [float(row["val/nll"]) for row in rows if row["rank"]]
    assert values == sorted(values)
    assert len(values) == sum(trial.state == "finished" for trial in trials)
    assert [row["trial"] for row in rows[-2:]] == ["ensemble of 2 teachers", "one teacher (mean)"]
    assert {int(row["trial"]) for row in rows[:-2]} == set(range(1, 11))


def test_the_best_trial_is_at_least_as_good_as_the_best_baseline(tiny: TinyStudy, trials: list[TrialRecord]) -> None:
    baselines = [trial.last["val/nll"] for trial in trials if trial.baseline]
    assert tiny.summary["best"]["metrics"]["val/nll"] <= min(baselines)


def test_rerunning_the_best_settings_gives_the_same_metrics_bit_for_bit(tiny: TinyStudy, tmp_path: Path) -> None:
    words = ("--json", "--studies-dir", tiny.studies, "--device", "cpu", "--out", tmp_path / "run")
    again = call("ensdistill", "distill", tiny.home / "best" / "config.yaml", *words)
    assert again.code == 0, again.err
    result = json.loads(again.out)
    best = tiny.summary["best"]
    assert result["config_hash"] == best["config_hash"]
    assert result["ensemble_hash"] == tiny.summary["ensemble_hash"]
    shared = ("accuracy", "nll", "brier", "ece", "cnll", "dee")
    assert {n: result["val"][n] for n in shared} == {n: best["metrics"][f"val/{n}"] for n in shared}


def test_the_best_student_has_the_metrics_listed_on_the_leaderboard(tiny: TinyStudy) -> None:
    done = call("ensdistill", "evaluate", tiny.home / "best" / "config.yaml", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["validation"]
    assert metrics["nll"] == pytest.approx(tiny.summary["best"]["metrics"]["val/nll"], abs=1e-12)


def test_the_best_student_file_contains_the_hash_of_its_settings(tiny: TinyStudy) -> None:
    with safe_open(tiny.home / "best" / "student.safetensors", framework="pt") as file:
        assert file.metadata()["settings"] == load_config(tiny.home / "best" / "config.yaml").hash


def test_a_default_name_in_use_gets_a_number_and_a_requested_name_in_use_is_refused(
    copy: Path, tiny: TinyStudy
) -> None:
    before = (copy / "tiny" / "study.json").read_bytes()
    refused = call("ensdistill-tune", "launch", tiny.file, "--studies-dir", copy, "--name", "tiny")
    assert refused.code == 2
    assert "already exists" in refused.err
    assert (copy / "tiny" / "study.json").read_bytes() == before
    small = ["budget.trials=1", "baselines=[]", "config.training.epochs=1", "confirmation.top_k=0"]
    quick = ["--json", "--executor", "inline", *(word for change in small for word in ("--set", change))]
    second = call("ensdistill-tune", "launch", tiny.file, "--studies-dir", copy, *quick)
    assert json.loads(second.out)["name"] == "tiny-2"
    assert (copy / "tiny" / "study.json").read_bytes() == before


def test_the_status_command_shows_the_study(tiny: TinyStudy) -> None:
    assert "tiny" in call("ensdistill-tune", "status", "--studies-dir", tiny.studies).out
    shown = call("ensdistill-tune", "status", "tiny", "--studies-dir", tiny.studies, "--json")
    assert json.loads(shown.out)["counts"] == tiny.summary["counts"]


def test_a_study_reports_that_its_time_budget_is_spent(copy: Path, tiny: TinyStudy) -> None:
    words = ["--studies-dir", copy, "--name", "short", "--set", "budget.minutes=0.05", "--json", "--executor", "inline"]
    done = call("ensdistill-tune", "launch", tiny.file, *words, "--set", "config.training.epochs=5000")
    assert done.code == 0, done.err
    assert "out of time" in done.err
    assert json.loads(done.out)["state"] == "timed_out"


def test_the_best_trials_and_the_baselines_are_run_again_with_fresh_seeds(
    trials: list[TrialRecord], replicates: list[TrialRecord]
) -> None:
    finished = sorted((t for t in trials if t.state == "finished"), key=lambda t: t.last["val/nll"])
    best = [t.number for t in finished if not t.baseline][:2]
    assert {(t.replicate_of, t.seed) for t in replicates} == {(n, seed) for n in (*best, 1, 2) for seed in (1, 2)}
    assert all(t.state == "finished" for t in replicates)
    assert len({t.config_hash for t in replicates}) == len(replicates)


def test_the_exported_student_is_the_best_replicate_of_the_winner(
    tiny: TinyStudy, replicates: list[TrialRecord]
) -> None:
    kept = json.loads((tiny.home / "confirmation.json").read_text())
    winner = kept["candidates"][0]
    means = [statistics.fmean(c["validation"]["val/nll"]) for c in kept["candidates"]]
    assert means == sorted(means)
    mine = min((t for t in replicates if t.replicate_of == winner["trial"]), key=lambda t: t.last["val/nll"])
    assert (
        tiny.summary["best"]["config_hash"] == mine.config_hash == load_config(tiny.home / "best" / "config.yaml").hash
    )
    assert kept["verdict"] in " ".join(tiny.done.out.split())


def test_the_test_set_is_evaluated_only_for_the_winner_and_the_baselines_and_the_teachers(tiny: TinyStudy) -> None:
    kept = json.loads((tiny.home / "confirmation.json").read_text())
    winner = kept["candidates"][0]
    baselines = [row["trial"] for row in kept["candidates"] if row["baseline"]]
    expected = {("candidate", number) for number in (winner["trial"], *baselines)}
    assert {(row["kind"], row["trial"]) for row in kept["test"]} == {
        *expected,
        ("ensemble", None),
        ("teacher_mean", None),
    }
    assert [len(row["metrics"]) for row in kept["test"]] == [2] * len(expected) + [1, 1]


def test_the_test_metrics_are_those_of_the_exported_student(tiny: TinyStudy) -> None:
    done = call(
        "ensdistill",
        "evaluate",
        tiny.home / "best" / "config.yaml",
        "--json",
        "--studies-dir",
        tiny.studies,
        "--split",
        "test",
    )
    kept = json.loads((tiny.home / "confirmation.json").read_text())
    seeds, rows = kept["candidates"][0]["seeds"], kept["test"][0]["metrics"]
    mine = rows[seeds.index(load_config(tiny.home / "best" / "config.yaml").seed)]
    assert json.loads(done.out)["test"] == mine


def test_the_diagnostics_are_computed_on_test_images_for_the_evaluated_students(tiny: TinyStudy) -> None:
    kept = json.loads((tiny.home / "confirmation.json").read_text())
    drawn = json.loads((tiny.home / "diagnostics.json").read_text())
    assert drawn["split"] == "test"
    looked_at = [(row["kind"], row["trial"]) for row in kept["test"] if row["kind"] != "teacher_mean"]
    assert [(row["kind"], row["trial"]) for row in drawn["networks"]] == looked_at
    assert drawn["networks"][0]["ece"] in [row["ece"] for row in kept["test"][0]["metrics"]]


def test_replicates_are_separate_mlflow_runs(
    client: MlflowClient, tiny: TinyStudy, parent: Run, replicates: list[TrialRecord]
) -> None:
    experiment = client.get_experiment_by_name("ensdistill").experiment_id
    found = client.search_runs([experiment], filter_string="tags.kind = 'confirmation'")
    assert {run.info.run_name for run in found} == {trial.name for trial in replicates}
    assert {run.data.tags["replicate_of"] for run in found} == {str(trial.replicate_of) for trial in replicates}
    kept = json.loads((tiny.home / "confirmation.json").read_text())["candidates"][0]["validation"]["val/nll"]
    assert parent.data.metrics["confirmed/mean_nll"] == pytest.approx(statistics.fmean(kept))
    assert parent.data.metrics["confirmed/sd_nll"] == pytest.approx(statistics.stdev(kept))
