"""Scikit-learn's 1,797 handwritten digits: real images, 8x8, on disk with the package, nothing to download."""

from __future__ import annotations

from typing import Literal

from ensdistill.data.sizes import SplitSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting


class Digits(SplitSizes, DataSource):
    """Few training images, so that an ensemble has something to teach (README: measured figures)."""

    kind: Literal["digits"] = "digits"
    train_size: int = setting(150, "Labeled training images.", ge=2)
    val_size: int = setting(700, "Images for choosing settings.", ge=2)
    test_size: int = setting(700, "Number of test images.", ge=10)

    def __call__(self) -> RawData:
        """1,797 images uint8 (N,1,8,8), ten classes. Alpaydin and Kaynak 1998, UCI repository."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy((bunch.images * (255 / 16)).round()).to(torch.uint8).unsqueeze(1)
        return RawData(Split(images, torch.from_numpy(bunch.target).long()), tuple(str(n) for n in bunch.target_names))
