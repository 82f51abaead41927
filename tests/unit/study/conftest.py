"""Fixtures shared by the tests of the study layer."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import TinyStudy


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """Unfreezes objects that `memory_limit` froze: a worker freezes them for good, but this process continues."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def copy(tiny: TinyStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A modifiable copy of the studies folder with the tiny study."""
    studies = tmp_path_factory.mktemp("copy") / "studies"
    shutil.copytree(tiny.studies, studies)
    return studies
