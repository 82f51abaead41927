"""Progress within long epochs is reported at time intervals and does not affect results."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from ensdistill.config import Config
from ensdistill.data import load_data
from ensdistill.training import epoch_progress
from ensdistill.training.epoch_progress import INTERVAL_S, EpochProgress, EpochWatch
from ensdistill.training.loop import distill
from tests.unit.core.core_stand_ins import random_ensemble, tiny_config


@pytest.fixture
def second_by_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the clock with one that advances one second per reading."""
    ticks = count()
    monkeypatch.setattr(epoch_progress, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))


@pytest.mark.usefixtures("second_by_second")
def test_a_progress_report_contains_the_completed_share_and_the_mean_loss_and_the_speed() -> None:
    told: list[EpochProgress] = []
    watch, losses = EpochWatch(told.append, epoch=4, steps=8, images=100), list[torch.Tensor]()
    for loss in range(1, 9):
        losses.append(torch.tensor(float(loss)))
        watch.step_done(losses)
    # The clock is read at 0 (start), at each step, and again for a report: steps 2, 4, 6, 8 are at 2, 5, 8, 11 seconds
    assert INTERVAL_S == 2
    assert [now.share for now in told] == [0.25, 0.5, 0.75, 1.0]
    assert [now.loss for now in told] == [1.5, 2.5, 3.5, 4.5]
    assert [now.images_per_second for now in told] == pytest.approx([200 / 3, 400 / 6, 600 / 9, 800 / 12])
    assert {now.epoch for now in told} == {4}


def test_a_short_epoch_sends_no_progress_reports() -> None:
    told: list[EpochProgress] = []
    watch = EpochWatch(told.append, epoch=1, steps=2, images=1)
    watch.step_done([torch.tensor(1.0)])
    assert told == []


@pytest.mark.parametrize("config", [tiny_config(), tiny_config("student.subnetworks=2", preset="latentbe")])
def test_progress_reports_do_not_affect_results(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data(config.data)
    ensemble = random_ensemble(data)
    plain = [(e.loss, e.val) for e in distill(config, ensemble, data)]
    monkeypatch.setattr(epoch_progress, "INTERVAL_S", 0.0)  # after every step
    told: list[EpochProgress] = []
    run = distill(config, ensemble, data)
    run.on_progress = told.append
    assert [(e.loss, e.val) for e in run] == plain
    assert len(told) == 3 * 4
    assert [now.loss for now in told if now.share == 1] == pytest.approx([loss for loss, _ in plain])
