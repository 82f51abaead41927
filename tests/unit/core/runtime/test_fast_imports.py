"""`fast_imports` collects garbage rarely and restores the thresholds of the garbage collector."""

import gc

import pytest

from ensdistill.runtime.fast_imports import RARELY, fast_imports


def test_thresholds_are_restored_after_the_block_and_after_an_error() -> None:
    before = gc.get_threshold()
    with fast_imports():
        assert gc.get_threshold() == RARELY
    assert gc.get_threshold() == before
    with pytest.raises(ImportError), fast_imports():
        raise ImportError
    assert gc.get_threshold() == before


def test_thresholds_are_restored_after_the_last_of_several_overlapping_blocks() -> None:
    before, first, second = gc.get_threshold(), fast_imports(), fast_imports()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() == RARELY
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before
