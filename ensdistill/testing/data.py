"""Contract for data sources: uint8 images and labels that can be divided into disjoint splits."""

import json
from typing import Any

import torch

from ensdistill.data import load_data, load_test
from ensdistill.testing.contract import Contract


class DataSourceContract(Contract):
    """Tests for data sources; each piece must have split sizes that leave images for training, validation and test."""

    def test_images_are_uint8_and_labels_are_class_indices(self, piece: Any) -> None:
        data = load_data(piece)
        for part in (data.train, data.validation, load_test(piece)):
            assert part.images.dtype == torch.uint8
            assert part.images.dim() == 4
            assert part.labels.dtype == torch.int64
            assert part.labels.min() >= 0
            assert part.labels.max() < len(data.class_names)
        assert (data.unlabeled.labels == -1).all()

    def test_drawn_splits_have_the_requested_sizes(self, piece: Any) -> None:
        raw, sizes, data = piece(), piece.sizes(), load_data(piece)
        found = {"train_size": len(data.train)}
        found |= {"val_size": len(data.validation)} if raw.validation is None else {}
        found |= {"test_size": len(load_test(piece))} if raw.test is None else {}
        counts = {name: size for name in found if isinstance(size := getattr(sizes, name), int)}
        assert {name: found[name] for name in counts} == counts

    def test_no_image_is_in_two_splits(self, piece: Any) -> None:
        data = load_data(piece)
        parts = [data.train, data.validation, data.unlabeled, load_test(piece)]
        images = [image.numpy().tobytes() for part in parts for image in part.images[:]]
        whole = piece()
        own = (whole.pool, whole.test, whole.validation, whole.unlabeled)
        there = [image.numpy().tobytes() for part in own if part for image in part.images[:]]
        assert len(images) == len(set(images)) == len(there)
        assert set(images) == set(there)

    def test_images_and_their_order_depend_only_on_the_seed(self, piece: Any) -> None:
        data, same = load_data(piece), load_data(piece.model_copy())
        assert same.identity == data.identity
        assert torch.equal(same.train.images[:], data.train.images[:])
        if "seed" in type(piece).model_fields:
            other = load_data(piece.model_copy(update={"seed": piece.seed + 1}))
            assert other.identity != data.identity
            assert not torch.equal(other.train.images[:], data.train.images[:])

    def test_every_class_is_in_every_labeled_split(self, piece: Any) -> None:
        data = load_data(piece)
        for part in (data.train, data.validation, load_test(piece)):
            assert set(part.labels.tolist()) == set(range(len(data.class_names)))

    def test_settings_are_restored_from_json(self, piece: Any) -> None:
        assert type(piece).model_validate(json.loads(piece.model_dump_json())) == piece
