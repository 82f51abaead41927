"""The 1,797 handwritten digits of scikit-learn: 8x8 images that ship with the library, so nothing is downloaded."""

from __future__ import annotations

from typing import Literal

from ensdistill.data.sizes import SplitSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting


class Digits(SplitSizes, DataSource):
    """The handwritten digits of scikit-learn.

    By default, the training split is small, so that an ensemble is clearly better than a single network (measurements
    are in docs/benchmarks/digits.md).

    References:
        Alpaydin and Kaynak 1998, Optical recognition of handwritten digits, UCI repository.
    """

    kind: Literal["digits"] = "digits"
    train_size: int = setting(150, "Number of labeled training images.", ge=2)
    val_size: int = setting(700, "Number of validation images.", ge=2)
    test_size: int = setting(700, "Number of test images.", ge=10)

    def __call__(self) -> RawData:
        """Returns 1,797 uint8 images (N,1,8,8) with ten classes."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy((bunch.images * (255 / 16)).round()).to(torch.uint8).unsqueeze(1)
        return RawData(Split(images, torch.from_numpy(bunch.target).long()), tuple(str(n) for n in bunch.target_names))
