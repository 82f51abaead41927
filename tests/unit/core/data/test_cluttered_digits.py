"""Cluttered digits are a pure function of the settings, with splits that share no digit and with balanced classes."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ensdistill.config import load_config
from ensdistill.data import ClutteredDigits, load_data, load_test
from ensdistill.data.cluttered_digits import PARTS, _digits_of_parts
from ensdistill.errors import ConfigError

SMALL = ClutteredDigits(train_size=200, val_size=100, test_size=100, unlabeled_size=50)


def test_generated_images_equal_the_recorded_bytes() -> None:
    images = SMALL().pool.images.numpy()
    assert images.shape == (200, 1, 16, 16)
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "ee9b395c0c7691f8"


@pytest.mark.parametrize("change", [{"seed": 1}, {"clutter": 3}, {"noise": 0.1}, {"size": 20}])
def test_every_image_setting_changes_the_images(change: dict[str, float]) -> None:
    other = SMALL.model_copy(update=change)
    assert other().pool.content != SMALL().pool.content


def test_no_original_digit_is_used_in_two_splits() -> None:
    labels = load_digits().target
    parts = [np.concatenate(by_class) for by_class in _digits_of_parts(labels, seed=3)]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    assert [len(part) / len(labels) for part in parts] == pytest.approx([0.4, 0.2, 0.25, 0.15], abs=0.005)
    assert len(parts) == len(PARTS)


def test_without_noise_and_clutter_an_image_is_no_brighter_than_its_digit() -> None:
    plain = ClutteredDigits(train_size=200, val_size=10, test_size=10, clutter=0, noise=0)().pool.images
    assert plain.amax((1, 2, 3)).float().min() > 0.5 * 255  # strokes of at least 0.7, slightly blurred
    corners = plain[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.float().mean() < 0.02 * 255


def test_clutter_makes_no_pixel_darker() -> None:
    plain, cluttered = (
        ClutteredDigits(train_size=100, val_size=10, test_size=10, clutter=n, noise=0)().pool.images.int()
        for n in (0, 3)
    )
    assert (cluttered >= plain).all()
    assert ((cluttered > plain).flatten(1).sum(1) > 0).float().mean() > 0.95


def test_classes_are_balanced_in_every_labeled_split() -> None:
    data, test = load_data(SMALL), load_test(SMALL)
    for part, each in ((data.train, 20), (data.validation, 10), (test, 10)):
        assert part.labels.bincount().tolist() == [each] * 10
    assert data.unlabeled.labels.unique().tolist() == [-1]
    assert len(data.unlabeled) == 50


def test_enlarging_a_split_keeps_its_first_images_and_does_not_change_other_splits() -> None:
    more = SMALL.model_copy(update={"train_size": 300})
    assert torch.equal(more().pool.images[:200], SMALL().pool.images)
    assert load_data(more).validation.content == load_data(SMALL).validation.content


@pytest.mark.parametrize("setting", ["size=8", "clutter=-1", "noise=2", "train_size=5", "seed=-1"])
def test_an_invalid_setting_is_rejected_and_named_in_the_error(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"data.{setting.split('=')[0]}: must be"):
        load_config("kd", ["data.kind=cluttered_digits", f"data.{setting}"])
