"""Counts with a singular or plural noun."""

import pytest

from ensdistill.runtime.text import counted


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
        (3, "array", "3 arrays"),
        (2, "class", "2 classes"),
        (0, "file", "0 files"),
    ],
)
def test_a_count_is_printed_with_a_singular_or_plural_noun(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text
