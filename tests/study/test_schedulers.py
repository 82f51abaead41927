"""Who is stopped early, and who never is."""

from statistics import fmean, median
from typing import Any

import pytest

from tune.record import FAILURE
from tune.schedulers import Asha, Median

STOP, CONTINUE = "STOP", "CONTINUE"


class Trial:
    """As much of Ray's trial as a scheduler looks at."""

    status = "RUNNING"

    def __init__(self, name: str, baseline: str | None = None) -> None:
        self.trial_id, self.config = name, {"baseline": baseline}


def started(settings: Any, mode: str = "min", epochs: int = 10) -> Any:
    scheduler = settings(epochs)
    assert scheduler.set_search_properties("val/nll", mode)
    return scheduler


def report(scheduler: Any, who: Any, values: list[float], first: int = 1, **more: Any) -> str:
    """Reports one epoch after the other; the answer to the last one, or STOP at once."""
    answer = CONTINUE
    for epoch, value in enumerate(values, start=first):
        answer = scheduler.on_trial_result(None, who, {"epoch": epoch, "val/nll": value, **more})
        if answer == STOP:
            break
    return answer


OTHERS = ([0.9, 0.5, 0.4], [0.8, 0.6, 0.5], [0.7, 0.7, 0.6])


@pytest.mark.parametrize("value", [0.55, 0.575, 0.59, 0.61, 0.7])
def test_median_stops_who_never_was_as_good_as_the_median_of_the_means_of_others(value: float) -> None:
    scheduler = started(Median(grace_epochs=2, trials=3))
    for n, values in enumerate(OTHERS):
        assert report(scheduler, Trial(f"other{n}"), values) == CONTINUE
    bound = median(fmean(values[1:2]) for values in OTHERS)  # from the grace epoch on, by epoch 2
    answer = report(scheduler, Trial("late"), [0.95, value])
    assert answer == (STOP if value > bound else CONTINUE)


def test_median_waits_for_enough_others_and_never_pauses() -> None:
    scheduler = started(Median(grace_epochs=1, trials=3))
    for n, values in enumerate(OTHERS[:2]):
        report(scheduler, Trial(f"other{n}"), values)
    assert report(scheduler, Trial("late"), [5.0, 5.0, 5.0]) == CONTINUE


def test_median_keeps_to_its_grace() -> None:
    scheduler = started(Median(grace_epochs=3, trials=1))
    report(scheduler, Trial("other"), OTHERS[0])
    assert report(scheduler, Trial("late"), [5.0, 5.0]) == CONTINUE
    assert report(scheduler, Trial("late too"), [5.0, 5.0, 5.0]) == STOP


def test_median_knows_when_more_is_better() -> None:
    scheduler = started(Median(grace_epochs=1, trials=1), mode="max")
    report(scheduler, Trial("other"), [0.9, 0.9])
    assert report(scheduler, Trial("worse"), [0.8]) == STOP
    assert report(scheduler, Trial("better"), [0.95]) == CONTINUE


@pytest.mark.parametrize("settings", [Median(grace_epochs=1, trials=1), Asha(grace_epochs=1, reduction_factor=2)])
def test_baselines_are_never_stopped_and_nobody_is_measured_against_them(settings: Any) -> None:
    scheduler = started(settings)
    baseline = Trial("kd", baseline="kd")
    scheduler.on_trial_add(None, baseline)
    assert report(scheduler, baseline, [0.01] * 10) == CONTINUE
    for n in range(3):
        searched = Trial(f"searched{n}")
        scheduler.on_trial_add(None, searched)
        assert report(scheduler, searched, [0.5]) == CONTINUE
    hopeless = Trial("hopeless", baseline="latentbe")
    scheduler.on_trial_add(None, hopeless)
    assert report(scheduler, hopeless, [9.0] * 10) == CONTINUE


def test_a_failed_trial_is_no_measure_for_others() -> None:
    scheduler = started(Median(grace_epochs=1, trials=1), mode="max")
    assert report(scheduler, Trial("failed"), [1e30], **{FAILURE: "nan"}) == CONTINUE
    assert report(scheduler, Trial("next"), [0.1]) == CONTINUE
