"""What the tests of the study layer share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """The collector sees again what `own_memory` set aside: a worker sets it aside for good, these tests live on."""
    yield
    gc.unfreeze()
