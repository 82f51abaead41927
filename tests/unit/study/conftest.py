"""What the tests of the study layer share."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import TinyStudy


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """The collector sees again what `memory_limit` set aside: a worker sets it aside for good, these tests live on."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def copy(tiny: TinyStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of studies with the tiny one, to be changed."""
    studies = tmp_path_factory.mktemp("copy") / "studies"
    shutil.copytree(tiny.studies, studies)
    return studies
