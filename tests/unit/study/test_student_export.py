"""Export of the winner: the exported student is the one described by the study."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pytest

from ensdistill.config import load_config
from ensdistill.data import load_data, load_test
from ensdistill.errors import ConfigError
from ensdistill_tune.records.result_rows import TestMetrics
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.student_export import ExportRequest, choose, export_students, rows_on_test
from ensdistill_tune.tracking.target import default_uri
from tests.commands import call
from tests.tiny import TinyStudy
from tests.unit.report.synthetic import facts

REGISTERED = f"tiny-student-{os.getpid()}"  # processes of one test run share the registry


@pytest.fixture(scope="module")
def kept(tiny: TinyStudy) -> dict[str, Any]:
    return dict(json.loads((tiny.home / "confirmation.json").read_text()))


@pytest.fixture(scope="module")
def exported(tiny: TinyStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two best students, of which the winner is in the model registry."""
    out = tmp_path_factory.mktemp("export")
    words = ["--studies-dir", tiny.studies, "--out", out, "--top", "2", "--register", REGISTERED, "--champion"]
    done = call("ensdistill-tune", "export", "tiny", *words)
    assert done.code == 0, done.err
    assert f"registered: {REGISTERED}, version 1, alias champion" in " ".join(done.out.split())
    return out


def test_the_winner_and_the_runner_up_are_exported_to_separate_folders(exported: Path, kept: dict[str, Any]) -> None:
    second = kept["candidates"][1]["trial"]
    assert {folder.name for folder in exported.iterdir()} == {"winner", f"trial-{second:03d}"}


def test_exported_settings_are_those_of_the_best_config(exported: Path, tiny: TinyStudy) -> None:
    assert load_config(exported / "winner" / "config.yaml").hash == load_config(tiny.home / "best" / "config.yaml").hash


def test_the_onnx_file_has_the_test_accuracy_stated_by_the_study(
    exported: Path, tiny: TinyStudy, kept: dict[str, Any]
) -> None:
    config = load_config(tiny.home / "best" / "config.yaml")
    test, winner = load_test(config.data), kept["candidates"][0]
    stated = kept["test"][0]["metrics"][winner["seeds"].index(config.seed)]
    session = onnxruntime.InferenceSession(exported / "winner" / "student.onnx")
    (logits,) = session.run(["logits"], {"images": test.images.permute(0, 2, 3, 1).numpy()})
    assert np.mean(logits.argmax(1) == test.labels.numpy()) == stated["accuracy"]


def test_the_model_card_states_the_spread_over_seeds_and_the_verdict(
    exported: Path, tiny: TinyStudy, kept: dict[str, Any]
) -> None:
    card = (exported / "winner" / "MODEL_CARD.md").read_text()
    nll = kept["candidates"][0]["validation"]["val/nll"]
    assert f"{np.mean(nll):.4f} +- {np.std(nll, ddof=1):.4f} (n=2)" in card
    assert kept["verdict"] in card
    best = load_config(tiny.home / "best" / "config.yaml")
    (shipped,) = (t for t in StudyDirectory(tiny.home).read_trials() if t.config_hash == best.hash and t.replicate_of)
    assert f"The student is from trial `{shipped.name}` of the study `tiny`." in card
    assert "Test images, evaluated once" in card


def test_the_registered_champion_classifies_images(exported: Path, tiny: TinyStudy) -> None:
    mlflow.set_tracking_uri(default_uri(tiny.studies))
    try:
        champion = mlflow.pyfunc.load_model(f"models:/{REGISTERED}@champion")
    finally:
        mlflow.set_tracking_uri(None)
    split = load_data(load_config(tiny.home / "best" / "config.yaml").data).validation
    images = split.images[:5].permute(0, 2, 3, 1).numpy()
    session = onnxruntime.InferenceSession(exported / "winner" / "student.onnx")
    expected = session.run(["probabilities"], {"images": images})[0]
    answer = champion.predict({"image": [*images]})
    np.testing.assert_allclose([[*row.values()] for row in answer["probabilities"]], expected, atol=1e-6)
    assert list(answer["label"]) == [str(k) for k in expected.argmax(1)]


def test_the_winner_is_a_logged_model_with_the_test_metrics_of_the_exported_seed(
    exported: Path, tiny: TinyStudy, kept: dict[str, Any]
) -> None:
    client = mlflow.MlflowClient(default_uri(tiny.studies))
    version = client.get_model_version_by_alias(REGISTERED, "champion")
    models = client.search_logged_models([client.get_run(version.run_id).info.experiment_id])
    (model,) = (model for model in models if model.artifact_location == version.source)
    seed = load_config(exported / "winner" / "config.yaml").seed
    stated = kept["test"][0]["metrics"][kept["candidates"][0]["seeds"].index(seed)]
    shown = {metric.key: metric.value for metric in model.metrics}
    assert {name: shown[f"test/{name}"] for name in ("nll", "accuracy")} == {
        name: stated[name] for name in ("nll", "accuracy")
    }
    assert {metric.dataset_digest for metric in model.metrics} == {tiny.summary["data_hash"]}
    parent = client.get_parent_run(version.run_id)
    assert model.model_id in {output.model_id for output in parent.outputs.model_outputs}


def test_a_trial_without_a_student_is_refused(tiny: TinyStudy, tmp_path: Path) -> None:
    failed = next(t for t in StudyDirectory(tiny.home).read_trials() if t.state == "failed")
    words = ["--studies-dir", tiny.studies, "--out", tmp_path, "--trial", str(failed.number)]
    done = call("ensdistill-tune", "export", "tiny", *words)
    assert (done.code, "must be finished, got failed" in done.err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_champion_without_a_model_name_is_refused(tiny: TinyStudy) -> None:
    done = call("ensdistill-tune", "export", "tiny", "--studies-dir", tiny.studies, "--champion")
    assert (done.code, "--register" in done.err) == (2, True)


def test_a_champion_that_is_not_the_winner_is_refused(tmp_path: Path) -> None:
    words = ["--studies-dir", tmp_path, "--trial", "3", "--register", "name", "--champion"]
    done = call("ensdistill-tune", "export", "nobody", *words)
    assert (done.code, "only the winner can be the champion" in done.err) == (2, True)


def test_an_impossible_registration_is_reported_before_any_file_is_written(tmp_path: Path) -> None:
    wanted = ExportRequest(register="name", formats=("safetensors",), out=tmp_path)
    with pytest.raises(ConfigError, match="add onnx to --formats"):
        export_students(tmp_path / "nobody", wanted, lambda *_: None)


def test_confirmed_candidates_are_exported_in_preference_to_unconfirmed_trials() -> None:
    known = facts(30)
    chosen = choose(known, len(known.confirmed) + 2, None)
    confirmed = {c.trial.number for c in known.confirmed}
    rest = [trial for trial in known.order if trial.number not in confirmed]
    assert [choice.candidate for choice in chosen] == [*known.confirmed, None, None]
    assert [choice.trial for choice in chosen[-2:]] == rest[:2]
    assert chosen[0].trial is known.confirmed[0].best(known.study)


@pytest.mark.parametrize(
    ("top", "number", "why"),
    [(0, None, "--top: must be .*, got 0"), (1000, None, "--top: must be .*, got 1000"), (1, 9999, "--trial 9999")],
)
def test_exporting_students_that_do_not_exist_is_refused(top: int, number: int | None, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        choose(facts(30), top, number)


def test_test_rows_contain_all_seeds_of_a_student_and_one_value_for_teachers() -> None:
    student = TestMetrics(kind="candidate", trial=16, metrics=[{"nll": 0.1}, {"nll": 0.3}])
    ensemble = TestMetrics(kind="ensemble", metrics=[{"nll": 0.25}])
    rows = rows_on_test(replace(facts(30), tested=[student, ensemble]))
    assert rows["016"]["nll"] == [0.1, 0.3]
    assert rows["ensemble of 4 teachers"]["nll"] == 0.25
