"""What the tests of the core share: one CPU thread, tiny data, a tiny ensemble."""

from collections.abc import Iterator

import pytest
import torch
from core_stand_ins import random_ensemble, tiny_config

from ensdistill.data import Data, load_data
from ensdistill.members import Ensemble


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> Data:
    """40 training and 60 validation digits."""
    return load_data(tiny_config().data)


@pytest.fixture(scope="session")
def ensemble(digits: Data) -> Ensemble:
    """Two untrained, hence different, teachers."""
    return random_ensemble(digits)
