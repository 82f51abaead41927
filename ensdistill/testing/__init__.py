"""Contract suites: pytest classes that test requirements shared by all pieces of a family.

    from ensdistill.testing import LossContract

    class TestFocal(LossContract):
        pieces = [Focal(), Focal(gamma=0.5)]

Each test runs once per piece. Instead of `pieces`, a class can define a `piece` fixture.
"""

import pytest

_SUITES = (
    *("augmentations", "averaging", "contract", "data", "losses", "metrics", "models", "optimizers"),
    *("perturbations", "students"),
)
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _SUITES))  # so that failed assertions show values

from ensdistill.testing.augmentations import AugmentationContract  # noqa: E402
from ensdistill.testing.averaging import AveragingContract  # noqa: E402
from ensdistill.testing.data import DataSourceContract  # noqa: E402
from ensdistill.testing.losses import LossContract  # noqa: E402
from ensdistill.testing.metrics import MetricContract  # noqa: E402
from ensdistill.testing.models import ModelContract  # noqa: E402
from ensdistill.testing.optimizers import OptimizerContract  # noqa: E402
from ensdistill.testing.perturbations import PerturbationContract  # noqa: E402
from ensdistill.testing.students import StudentContract  # noqa: E402

__all__ = [
    "AugmentationContract",
    "AveragingContract",
    "DataSourceContract",
    "LossContract",
    "MetricContract",
    "ModelContract",
    "OptimizerContract",
    "PerturbationContract",
    "StudentContract",
]
