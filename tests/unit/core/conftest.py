"""Fixtures shared by the tests of the core: tiny data and a tiny ensemble."""

import pytest

from ensdistill.data import DataSplits, load_data
from ensdistill.methods.members import TeacherEnsemble
from tests.unit.core.core_stand_ins import random_ensemble, tiny_config


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    """40 training and 60 validation digits."""
    return load_data(tiny_config().data)


@pytest.fixture(scope="session")
def ensemble(digits: DataSplits) -> TeacherEnsemble:
    """Two teachers that are untrained and therefore different."""
    return random_ensemble(digits)
