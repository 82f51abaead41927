"""Cache of teacher logits for images that are never changed: computed once and used by every run."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ensdistill.config import Config, build_config
from ensdistill.data import DataSplits, Split
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models import build
from ensdistill.training.loop import distill
from ensdistill.training.teacher_logits import CachedTeachers, TeacherLogitCache
from tests.unit.core.core_stand_ins import random_ensemble, tiny_config

PRESETS = {  # methods that do not change the images
    "kd": (),
    "aekd": (),
    "ekd": (),
    "unikd": ("training.unlabeled_batch_size=5",),
}
every_preset = pytest.mark.parametrize("name", PRESETS)


def config_for(name: str, *overrides: str) -> Config:
    return tiny_config(*PRESETS[name], *overrides, preset=name)


def run(
    config: Config, ensemble: TeacherEnsemble, data: DataSplits, cache: TeacherLogitCache | None = None
) -> list[tuple[float, dict[str, float]]]:
    return [(epoch.loss, epoch.val) for epoch in distill(config, ensemble, data, cache=cache)]


@contextmanager
def asked(ensemble: TeacherEnsemble) -> Iterator[list[int]]:
    """Yields the batch sizes of all calls of the first teacher inside the block."""
    calls: list[int] = []
    handle = ensemble.networks[0].register_forward_pre_hook(lambda _, images: calls.append(len(images[0])))
    yield calls
    handle.remove()


# --- the same results ---


@every_preset
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cached_teacher_logits_give_the_same_results_as_logits_computed_at_every_step(
    name: str, precision: str, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ensemble = config_for(name, "training.epochs=1", f"training.precision={precision}"), random_ensemble(digits)
    recalled = run(config, ensemble, digits)
    monkeypatch.setattr(TeacherLogitCache, "logits", lambda *_: None)
    with asked(ensemble) as calls:
        live = run(config, ensemble, digits)
    assert calls == [config.training.batch_size + config.training.unlabeled_batch_size] * 4
    # In bfloat16, cached teacher logits keep digits that computed ones lose.
    exactness: dict[str, float] = {"rel": 1e-5, "abs": 1e-7} if precision == "float32" else {"rel": 0.05, "abs": 0.01}
    for (loss, val), (live_loss, live_val) in zip(recalled, live, strict=True):
        assert loss == pytest.approx(live_loss, **exactness)
        assert val["nll"] == pytest.approx(live_val["nll"], **exactness)


@pytest.mark.parametrize("unlabeled", [0, 5])
@pytest.mark.parametrize("batch", [7, 1000])
def test_cached_logits_equal_those_computed_for_each_image(
    unlabeled: int, batch: int, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensdistill.evaluation.predict.BATCH", batch)
    ensemble = random_ensemble(digits, 3)
    config = tiny_config(f"training.unlabeled_batch_size={unlabeled}")
    known = TeacherLogitCache(ensemble).logits(digits, config)
    assert known is not None
    images = torch.cat([digits.train.images, digits.unlabeled.images[: len(digits.unlabeled) * (unlabeled > 0)]])
    assert known.shape == (3, len(images), 10)
    assert known.dtype == torch.float32
    for n in (0, 39, len(images) - 1):
        for m in range(3):
            alone = ensemble.networks[m](images[n : n + 1] / 255)[0]
            torch.testing.assert_close(known[m, n], alone, rtol=1e-5, atol=1e-6)


@every_preset
def test_results_do_not_depend_on_whether_the_cache_was_filled_before_the_run(name: str, digits: DataSplits) -> None:
    config = config_for(name)
    by_itself = run(config, random_ensemble(digits), digits)
    ahead = TeacherLogitCache(random_ensemble(digits))
    torch.set_num_threads(2)
    torch.manual_seed(5)
    try:
        ahead.logits(digits, config)
    finally:
        torch.set_num_threads(1)
    copied = copy.deepcopy(ahead)
    with asked(ahead.ensemble) as calls, asked(copied.ensemble) as calls_of_copy:
        assert run(config, copied.ensemble, digits, copied) == run(config, ahead.ensemble, digits, ahead) == by_itself
    assert calls == calls_of_copy == []


@every_preset
def test_a_resumed_run_uses_the_same_cached_logits(name: str, digits: DataSplits, tmp_path: Path) -> None:
    config = config_for(name)
    whole, distiller = [], distill(config, random_ensemble(digits), digits)
    for epoch in distiller:
        whole.append((epoch.loss, epoch.val))
        if epoch.number == 1:
            distiller.save_checkpoint(tmp_path / "checkpoint")
    again = distill(config, random_ensemble(digits), digits, resume=tmp_path / "checkpoint")
    assert [(epoch.loss, epoch.val) for epoch in again] == whole[1:]


# --- computed once, or at every step ---


@every_preset
def test_teacher_logits_of_each_image_are_computed_once(name: str, digits: DataSplits) -> None:
    config, ensemble = config_for(name), random_ensemble(digits)
    images = len(digits.train) + len(digits.unlabeled) * (config.training.unlabeled_batch_size > 0)
    cache = TeacherLogitCache(ensemble)
    with asked(ensemble) as calls:
        epochs = distill(config, ensemble, digits, cache=cache)
        next(epochs)
        assert sum(calls) == images
        list(epochs)
        run(config.model_copy(update={"seed": 1}), ensemble, digits, cache)
        assert sum(calls) == images


CHANGE: list[Any] = [{"after_epoch": 1, "set": {"loss.temperature": 2.0}}]


def test_teacher_logits_are_not_recomputed_after_scheduled_changes_of_other_settings(digits: DataSplits) -> None:
    config = build_config(tiny_config().model_dump(mode="json") | {"schedule": CHANGE})
    ensemble = random_ensemble(digits)
    with asked(ensemble) as calls:
        run(config, ensemble, digits)
    assert calls == [40]


@pytest.mark.parametrize(
    "other",
    [
        "training.augmentation.flip=true",
        "training.augmentation.pad=1",
        "training.augmentation.cutout=2",
        "training.augmentation.crop_scale=0.5",
        "perturbation.kind=gaussian",
        "perturbation.kind=mixup",
        "perturbation.kind=ods",
    ],
)
def test_teacher_logits_are_computed_at_every_step_if_training_changes_the_images(
    other: str, digits: DataSplits
) -> None:
    ensemble = random_ensemble(digits)
    cache = TeacherLogitCache(ensemble)
    assert cache.logits(digits, tiny_config(other)) is None
    with asked(ensemble) as calls:
        run(tiny_config(other), ensemble, digits, cache)
    assert len(calls) >= 12
    assert set(calls) == {10}
    assert cache.arrays == {}


def test_an_empty_ensemble_has_no_cached_logits(digits: DataSplits) -> None:
    assert TeacherLogitCache(TeacherEnsemble([], 10, "none")).logits(digits, tiny_config()) is None


def test_cached_logits_of_a_batch_equal_those_of_the_ensemble() -> None:
    logits = torch.randn(3, 4, 5)
    recalled = CachedTeachers(logits)
    assert len(recalled) == 3
    assert torch.equal(recalled(torch.zeros(4, 1, 2, 2)), logits)
    assert torch.equal(recalled(torch.zeros(4, 1, 2, 2), [2, 0]), logits[[2, 0]])


# --- no logits of other teachers or images ---


def brighter(split: Split) -> Split:
    return Split(split.images + 1, split.labels)


def part(data: DataSplits, **parts: Split) -> DataSplits:
    """Returns the data with some splits replaced under the same identity."""
    return replace(data, **parts)


def test_cached_logits_are_not_used_for_different_images_even_if_the_data_identity_is_the_same(
    digits: DataSplits,
) -> None:
    cache = TeacherLogitCache(random_ensemble(digits))
    order = torch.arange(40).flip(0)
    flat = digits.train.images.view(40, 1, 4, 16)
    others = [
        part(digits, train=brighter(digits.train)),
        part(digits, train=Split(digits.train.images[order], digits.train.labels[order])),
        part(digits, train=Split(digits.train.images[:20], digits.train.labels[:20])),
        part(digits, train=Split(flat, digits.train.labels)),
        part(digits, unlabeled=brighter(digits.unlabeled)),
    ]
    config = tiny_config("training.unlabeled_batch_size=5")
    for data in (digits, *others):
        fresh = TeacherLogitCache(random_ensemble(digits)).logits(data, config)
        known = cache.logits(data, config)
        assert known is not None
        assert fresh is not None
        assert torch.equal(known, fresh)
    assert len(cache.arrays) == 6


def test_cached_logits_are_also_used_for_copies_of_the_images(digits: DataSplits) -> None:
    cache, config = TeacherLogitCache(random_ensemble(digits)), tiny_config()
    cache.logits(digits, config)
    copied = part(digits, train=Split(digits.train.images.clone(), digits.train.labels))
    with asked(cache.ensemble) as calls:
        cache.logits(copied, config)
    assert calls == []


def test_teacher_logits_are_cached_separately_for_each_number_of_threads(digits: DataSplits) -> None:
    cache = TeacherLogitCache(random_ensemble(digits))
    seen = []
    cache.ensemble.networks[0].register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    for threads in (1, 2, 1, 2):
        cache.logits(digits, tiny_config(f"training.threads={threads}"))
    assert seen == [1, 2]
    assert torch.get_num_threads() == 1


def test_logits_of_different_teachers_are_refused_even_if_the_ensemble_identity_is_the_same(digits: DataSplits) -> None:
    config, model = tiny_config(), tiny_config().teachers.model
    others = TeacherEnsemble([build(model, digits, 200 + m) for m in range(2)], 10, "random")
    with pytest.raises(ValueError, match="logits of another ensemble"):
        distill(config, others, digits, cache=TeacherLogitCache(random_ensemble(digits)))


def test_a_run_does_not_modify_cached_teacher_logits(digits: DataSplits) -> None:
    """Memory that is shared between processes is read-only."""
    config, cache = config_for("unikd"), TeacherLogitCache(random_ensemble(digits))
    known = cache.logits(digits, config)
    assert known is not None
    before: Tensor = known.clone()
    run(config, cache.ensemble, digits, cache)
    assert torch.equal(known, before)
    assert known.data_ptr() == next(iter(cache.arrays.values())).ctypes.data
