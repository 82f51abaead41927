"""Splits are disjoint, stratified and reproducible, and images stay bytes."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_digits as sklearn_digits

from ensdistill.config import build_config, load_config, to_yaml
from ensdistill.data import DataSplits, Digits, RawData, Split, load_data, load_test
from ensdistill.data.splits import SplitSizes, split_source, to_unit
from ensdistill.errors import ConfigError
from tests.unit.core.core_stand_ins import numbered_split, numbers_of

NAMES = ("a", "b", "c")


def cut(
    seed: int = 0, pool: int = 300, own_test: Split | None = None, **sizes: float | None
) -> tuple[DataSplits, Split]:
    sizes = {"train_size": 60, "val_size": 90, "test_size": 30} | sizes
    return split_source(RawData(numbered_split(pool, 3), NAMES, own_test), SplitSizes(seed=seed, **sizes))


def test_splits_are_disjoint_and_together_contain_the_whole_pool() -> None:
    data, test = cut()
    parts = [numbers_of(part) for part in (data.train, data.validation, data.unlabeled, test)]
    assert [len(part) for part in parts] == [60, 90, 120, 30]
    assert sorted(number for part in parts for number in part) == list(range(300))


def test_every_image_keeps_its_label() -> None:
    data, test = cut()
    for part in (data.train, data.validation, test):
        assert part.labels.tolist() == [number % 3 for number in numbers_of(part)]


def test_unlabeled_images_have_the_label_minus_one() -> None:
    data, _ = cut()
    assert set(data.unlabeled.labels.tolist()) == {-1}


@pytest.mark.parametrize(("part", "each"), [("train", 20), ("validation", 30)])
def test_every_class_has_a_proportional_share_of_each_split(part: str, each: int) -> None:
    data, _ = cut()
    assert Counter(getattr(data, part).labels.tolist()) == {0: each, 1: each, 2: each}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("part", ["train", "validation"])
def test_class_counts_of_the_digits_differ_by_at_most_one_from_their_proportional_share(part: str, seed: int) -> None:
    counts = Counter(getattr(load_data(Digits(seed=seed)), part).labels.tolist())
    everywhere = Counter(sklearn_digits().target.tolist())
    images = sum(counts.values())
    assert all(abs(counts[digit] - images * n / 1797) <= 1 for digit, n in everywhere.items())


def test_the_same_seed_gives_the_same_split() -> None:
    (first, first_test), (second, second_test) = cut(seed=3), cut(seed=3)
    assert first.identity == second.identity
    assert numbers_of(first.train) == numbers_of(second.train)
    assert numbers_of(first_test) == numbers_of(second_test)


def test_different_seeds_give_different_splits() -> None:
    (first, first_test), (second, second_test) = cut(seed=3), cut(seed=4)
    assert numbers_of(first.train) != numbers_of(second.train)
    assert numbers_of(first.validation) != numbers_of(second.validation)
    assert numbers_of(first_test) != numbers_of(second_test)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"train_size": 63}, {"val_size": 93}, {"test_size": 33}, {"pool": 303}], ids=str
)
def test_the_content_hash_changes_with_the_seed_and_the_sizes_and_the_images(change: dict[str, int]) -> None:
    assert cut(**change)[0].identity != cut()[0].identity


def test_the_content_hash_changes_with_a_single_pixel() -> None:
    pool = numbered_split(300, 3)
    sizes = SplitSizes(train_size=60, val_size=90, test_size=30)
    before = split_source(RawData(pool, NAMES), sizes)[0].identity
    pool.images[7, 0, 0, 1] += 1
    assert split_source(RawData(pool, NAMES), sizes)[0].identity != before


def test_the_content_hash_changes_with_the_class_names() -> None:
    sizes = SplitSizes(train_size=60, val_size=90, test_size=30)
    identities = {split_source(RawData(numbered_split(300, 3), names), sizes)[0].identity for names in (NAMES, "xyz")}
    assert len(identities) == 2


def test_the_test_split_of_the_source_is_used_unchanged() -> None:
    own = numbered_split(12, 3)
    data, test = cut(own_test=own)
    assert test is own
    assert len(data.unlabeled) == 300 - 150


def test_the_content_hash_includes_the_test_images() -> None:
    own = numbered_split(12, 3)
    other = Split(own.images.clone(), own.labels)
    other.images[3, 0, 0, 0] += 1
    assert cut(own_test=other)[0].identity != cut(own_test=own)[0].identity


def test_increasing_the_training_size_does_not_change_validation_and_test_images() -> None:
    (first, first_test), (second, second_test) = cut(train_size=30), cut(train_size=90)
    assert numbers_of(first_test) == numbers_of(second_test)
    assert numbers_of(first.validation) == numbers_of(second.validation)


def test_splits_may_use_the_whole_pool_so_that_no_image_is_unlabeled() -> None:
    data, _ = cut(train_size=180)
    assert len(data.train) == 180
    assert len(data.unlabeled) == 0


@pytest.mark.parametrize(
    ("sizes", "part"),
    [
        ({"test_size": 301}, "test_size"),
        ({"val_size": 271}, "val_size"),
        ({"train_size": 181}, "train_size"),
        ({"train_size": 2}, "train_size"),
        ({"val_size": 2}, "val_size"),
        ({"train_size": 179}, "train_size"),
        ({"val_size": 270}, "train_size"),
    ],
    ids=str,
)
def test_a_split_size_that_cannot_be_drawn_is_rejected_and_named_in_the_error(sizes: dict[str, int], part: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{part}: "):
        cut(**sizes)


def test_the_only_image_of_a_class_is_used_for_training_and_a_warning_names_the_class() -> None:
    pool = numbered_split(30, 2)
    pool.labels[5] = 2
    data, test = split_source(RawData(pool, NAMES), SplitSizes(train_size=9, val_size=9, test_size=9))
    assert [len(part) for part in (data.train, data.validation, data.unlabeled, test)] == [9, 9, 3, 9]
    assert 5 in numbers_of(data.train)
    assert [(warning.path[1], warning.rule) for warning in data.warnings if len(warning.path) == 2] == [
        ("val_size", "1 class without validation images: c"),
        ("test_size", "1 class without test images: c"),
    ]


# --- counts and shares ---


def test_shares_are_fractions_of_the_whole_pool_and_all_other_images_are_for_training() -> None:
    data, test = cut(train_size=None, val_size=0.2, test_size=0.1)
    assert [len(part) for part in (data.train, data.validation, data.unlabeled, test)] == [210, 60, 0, 30]
    data, _ = cut(train_size=0.5, val_size=0.2, test_size=0)
    assert [len(part) for part in (data.train, data.validation, data.unlabeled)] == [150, 60, 90]


def test_a_share_gives_the_same_split_as_the_equivalent_count() -> None:
    assert cut(val_size=0.1)[0].identity == cut(val_size=30)[0].identity


def test_a_small_share_contains_an_image_of_each_class() -> None:
    assert sorted(cut(val_size=0.001)[0].validation.labels.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("value", [1.0, 0.0, 1.5, -0.1, 0, -1, True, "0.1", None, 2.0])
@pytest.mark.parametrize("part", ["val_size", "train_size"])
def test_a_split_size_that_is_neither_a_count_nor_a_share_is_rejected(part: str, value: object) -> None:
    if part == "train_size" and value is None:
        return  # all remaining images
    with pytest.raises(ConfigError, match=rf"data\.{part}: must be a whole number of at least 1 .*a share"):
        load_config("kd", [f"data={json.dumps({'kind': 'npz', 'path': 'x.npz', part: value})}"])


def test_counts_and_shares_are_preserved_by_yaml_and_json() -> None:
    given = {"data": {"kind": "npz", "path": "x.npz", "train_size": 40, "val_size": 0.25}}
    config = build_config(given)
    assert build_config(yaml.safe_load(to_yaml(config))) == config
    assert type(config).model_validate_json(config.model_dump_json()) == config
    assert (config.data.train_size, config.data.val_size, config.data.test_size) == (40, 0.25, 0.1)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (
            {"train_size": 45_000},
            "45000 images are too many; 180 of 300 labeled images are left; set it to 180 or null",
        ),
        ({"test_size": 301}, "set it to at most 297"),
        ({"val_size": 0.95}, r"0.95 \(285 images\) are too many; 270 of 300"),
        ({"train_size": 178}, "set it to 180 or null .*, or at most 177"),
    ],
    ids=str,
)
def test_a_size_that_is_too_large_is_rejected_and_possible_sizes_are_suggested(
    sizes: dict[str, float], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        cut(**sizes)


def test_the_sizes_suggested_by_an_error_can_be_drawn() -> None:
    assert [len(cut(train_size=size)[0].train) for size in (177, 180, None)] == [177, 180, 180]
    assert len(cut(test_size=294, val_size=3, train_size=3)[1]) == 294


def test_every_allowed_seed_can_be_used() -> None:
    seed = 2**32
    try:
        sizes = SplitSizes(seed=seed, train_size=60, val_size=90)
    except ValueError:
        return  # rejected when the settings are read
    split_source(RawData(numbered_split(300, 3), NAMES), sizes)


# --- images ---


def test_images_are_bytes_and_labels_are_integers() -> None:
    data = load_data(Digits())
    for part in (data.train, data.validation, data.unlabeled, load_test(Digits())):
        assert part.images.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert part.images.shape[1:] == (1, 8, 8)


def test_digits_equal_the_scikit_learn_digits_scaled_to_bytes() -> None:
    pool = Digits()().pool
    original = sklearn_digits().images
    assert np.abs(pool.images[:, 0].numpy() / 255 - original / 16).max() < 0.5 / 255 + 1e-9
    assert pool.labels.tolist() == sklearn_digits().target.tolist()


def test_loading_training_and_test_digits_separately_gives_parts_of_the_same_split() -> None:
    settings = Digits()
    data, test = split_source(settings(), settings.sizes())
    assert load_data(settings).identity == data.identity
    assert torch.equal(load_test(settings).images, test.images)


def test_a_batch_contains_floats_between_zero_and_one_in_new_memory() -> None:
    split = Split(torch.tensor([[[[0, 51]]], [[[255, 102]]]], dtype=torch.uint8), torch.tensor([4, 5]))
    images, labels = split[torch.tensor([1, 0])]
    torch.testing.assert_close(images, torch.tensor([[[[1, 0.4]]], [[[0, 0.2]]]]))
    assert labels.tolist() == [5, 4]
    images.zero_()
    assert split.images.tolist() == [[[[0, 51]]], [[[255, 102]]]]


def test_every_byte_value_divided_by_255_is_between_zero_and_one() -> None:
    unit = to_unit(torch.arange(256, dtype=torch.uint8))
    assert unit.min() == 0
    assert unit.max() == 1


def test_channel_statistics_equal_those_of_numpy() -> None:
    images = torch.randint(256, (50, 3, 5, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, 1] //= 9
    mean, std = Split(images, torch.zeros(50).long()).channel_statistics()
    expected = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean.numpy(), expected.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(std.numpy(), expected.std((0, 2, 3)), atol=1e-6)


def test_the_standard_deviation_of_a_constant_channel_is_not_zero() -> None:
    _, std = Split(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8), torch.zeros(4).long()).channel_statistics()
    assert std.item() > 0


def test_a_size_of_true_is_rejected_without_the_hint_for_a_size_of_1() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("kd", ["data.kind=image_folder", "data.path=x", "data.val_size=true"])
    assert "a count" in str(caught.value)
    assert "null" not in str(caught.value)
