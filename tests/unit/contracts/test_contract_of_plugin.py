"""The pieces of the plugin in tests/plugin satisfy the contracts, tested as a plugin author would test them."""

import pytest

from ensdistill.testing import (
    AugmentationContract,
    AveragingContract,
    DataSourceContract,
    LossContract,
    MetricContract,
    ModelContract,
    PerturbationContract,
    StudentContract,
)
from tests.plugin.ensdistill_example.methods import Focal, LabelProbability, Median, Negative, PixelDropout
from tests.plugin.ensdistill_example.networks import Copies, Mlp
from tests.plugin.ensdistill_example.stripes import Stripes


class TestNegative(AugmentationContract):
    pieces = (Negative(share=0.5), Negative(share=0.0), Negative(flip=True))


class TestFocal(LossContract):
    pieces = (Focal(), Focal(gamma=0.0))


class TestPixelDropout(PerturbationContract):
    pieces = (PixelDropout(),)


class TestMedian(AveragingContract):
    pieces = (Median(), Median(window=1))


class TestLabelProbability(MetricContract):
    @pytest.fixture
    def piece(self) -> LabelProbability:
        return LabelProbability()


class TestMlp(ModelContract):
    pieces = (Mlp(width=4),)


class TestCopies(StudentContract):
    pieces = (Copies(),)


class TestStripes(DataSourceContract):
    pieces = (Stripes(),)
