"""Formatting of numbers, sizes and counts."""

import pytest

from ensdistill.runtime.formatting import file_size, in_millions, mean_and_spread, memory_size, percent
from ensdistill.runtime.text import counted, listed, verb


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (file_size(999), "1.0 kB"),
        (file_size(1_234_567), "1,234.6 kB"),
        (memory_size(1000), "1 KiB"),
        (memory_size(2**20), "1 MiB"),
        (memory_size(2**30), "1.0 GiB"),
        (in_millions(81_240_000), "81.2"),
        (percent(0.034), "3 %"),
        (percent(0.034, 1), "3.4 %"),
        (mean_and_spread([0.1, 0.3]), "0.2000 +- 0.1414"),
        (mean_and_spread([0.25]), "0.2500"),
        (mean_and_spread([1, 3], 1), "2.0 +- 1.4"),
        (counted(1, "class"), "1 class"),
        (counted(2, "class"), "2 classes"),
        (counted(0, "file"), "0 files"),
        (listed("abc"), "a, b, c"),
        (listed("abc", 2), "a, b and 1 more"),
        (listed(map(str, range(12))), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
        (listed(["a\nb"]), r"a\nb"),
        (verb(1), "is"),
        (verb(0), "are"),
    ],
)
def test_numbers_and_sizes_and_counts_are_formatted_for_readers(text: str, expected: str) -> None:
    assert text == expected
