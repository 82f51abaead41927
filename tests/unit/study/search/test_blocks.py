"""Hyperparameters whose values are blocks of settings have short names and are supported by MLflow and Optuna."""

import csv
import io
import warnings
from typing import Any

import pytest

from ensdistill_tune.analysis.leaderboard import leaderboard_csv
from ensdistill_tune.execution.trial_planner import suggester_of
from ensdistill_tune.formatting import short_name, short_value
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.report.figures.axes import setting_ticks
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking.run_fields import settings_of, settings_of_study
from ensdistill_tune.tracking.views import MlflowPages, views

MODELS = [{"kind": "convnet"}, {"kind": "resnet", "depth": 8}, {"kind": "resnet", "depth": 14}]
BLOCKS: dict[str, list[Any]] = {
    "model": MODELS,
    "perturbation": [{"kind": "none"}, {"kind": "gaussian", "step_size": 0.123456}],
    "loss": [{"kind": "averaged", "alpha": 0.5}, {"kind": "averaged", "temperature": 2.0}],
}


def study_of(name: str, way: str = "choice", **more: Any) -> StudyConfig:
    return StudyConfig.model_validate({"preset": "kd", "search": {name: {way: BLOCKS[name]}}, **more})


def trial_of(number: int, **sampled: Any) -> TrialRecord:
    return TrialRecord(number, None, sampled, "")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"kind": "convnet"}, "convnet"),
        ({"kind": "resnet", "depth": 8}, "resnet(depth=8)"),
        ({"depth": 8, "kind": "resnet", "more": [1, "a", None]}, "resnet(depth=8, more=[1, a, null])"),
        ({"pad": 4}, "(pad=4)"),
        ({"kind": "resnet", "weights": "/home/me/start.safetensors"}, "resnet(weights=start.safetensors)"),
        ([], "[]"),
        (True, "true"),
        (None, "null"),
        (0.012345, "0.0123"),
        (12, "12"),
        ("ema", "ema"),
    ],
)
def test_every_value_of_a_hyperparameter_is_displayed_in_a_short_form(value: Any, text: str) -> None:
    assert short_value(value) == text


def test_the_short_name_of_a_setting_is_the_last_part_of_its_name_other_than_kind() -> None:
    names = ("model", "loss.alpha", "averaging.kind", "kind", "student.layers.kind")
    assert [short_name(name) for name in names] == ["model", "alpha", "averaging", "kind", "layers"]


def test_the_short_form_of_a_value_appears_in_trial_names_and_axis_ticks_and_the_leaderboard() -> None:
    study, trial = study_of("model"), trial_of(1, model=MODELS[1])
    assert trial.name == "001 model=resnet(depth=8)"
    assert setting_ticks(study.search["model"])[1] == ["convnet", "resnet(depth=8)", "resnet(depth=14)"]
    (row,) = csv.DictReader(io.StringIO(leaderboard_csv(study, [trial], {})))
    assert row["model"] == "resnet(depth=8)"


@pytest.mark.parametrize("name", BLOCKS)
def test_mlflow_has_a_parameter_for_the_block_and_for_each_setting_inside_it(name: str) -> None:
    study = study_of(name)
    for value in BLOCKS[name]:
        settings = settings_of(trial_of(1, **{name: value}), study)
        assert settings[name] == short_value(value)
        assert {f"{name}.{key}": one for key, one in value.items()}.items() <= settings.items()


def test_the_parent_run_omits_settings_that_differ_between_trials() -> None:
    assert not [name for name in settings_of_study(study_of("model")) if name.startswith("model")]


def test_the_chart_of_a_study_uses_parameters_that_its_trials_have() -> None:
    study = study_of("model")
    (view, *_) = views(MlflowPages("1", "run", "view"), study).values()
    settings = settings_of(trial_of(1, model=MODELS[0]), study)
    assert '"selectedParams": ["model"]' in view
    assert "model" in settings


@pytest.mark.parametrize("searcher", ["tpe", "random", "qmc", "nsga2", "gp"])
@pytest.mark.parametrize("way", ["choice", "grid"])
def test_every_searcher_suggests_blocks_and_can_be_restored(searcher: str, way: str) -> None:
    more: dict[str, Any] = {"searcher": {"kind": searcher}, "points_to_evaluate": [{"model": MODELS[2]}]}
    study = study_of("model", way, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, again = suggester_of(study), suggester_of(study)
        suggested = []
        for number in range(1, 6):
            sampled, memory = first.suggest(number) or ({}, {})
            assert sampled["model"] in MODELS
            suggested.append(sampled)
            again.restore(TrialRecord(number, None, sampled, "", memory=memory))
        assert suggested[0] == {"model": MODELS[2]}
        assert again.suggest(6) == first.suggest(6)
