"""A study with automatic precision selects the precision once for all its trials."""

import pytest
import torch

from ensdistill_tune.study import preparation
from ensdistill_tune.study.study_config import StudyConfig


def of(precision: str, gpu: float = 0) -> StudyConfig:
    study = {
        "config": {"data": {"kind": "digits"}, "training": {"precision": precision, "epochs": 3}},
        "search": {"loss.temperature": {"uniform": [1, 2]}},
        "resources": {"gpus": gpu},
    }
    return StudyConfig.model_validate(study)


@pytest.mark.parametrize(("fast", "becomes"), [(True, "bfloat16"), (False, "float32")])
def test_automatic_precision_selects_the_fastest_precision_of_the_device(
    fast: bool, becomes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "fast_in_bfloat16", lambda device: fast)
    decided = preparation.resolve_precision(of("auto"))
    assert decided == of(becomes)
    assert decided.base_config.training.precision == becomes


def test_an_explicitly_requested_precision_is_kept() -> None:
    for precision in ("float32", "bfloat16"):
        assert preparation.resolve_precision(of(precision)) == of(precision)


def test_gpus_that_are_not_visible_are_assumed_to_be_fast_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert preparation.resolve_precision(of("auto", gpu=1)).base_config.training.precision == "bfloat16"
