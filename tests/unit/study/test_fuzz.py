"""Random edits of study files, settings, checkpoints and environments, 25 of each kind."""

from collections import Counter

import pytest

from tests import fuzz
from tests.commands import Done


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_randomly_edited_input_is_accepted_or_raises_an_error_class_defined_in_this_project(kind: str) -> None:
    outcomes = Counter[str]()
    failures = [
        fuzz.failure(case, lambda case: outcomes.update([fuzz.check(case)])) for case in fuzz.cases(0, 25, iter([kind]))
    ]
    assert [wrong for wrong in failures if wrong] == []
    assert outcomes.total() == 25


@pytest.mark.parametrize(
    "done",
    [
        Done(0, "Traceback (most recent call last):", ""),
        Done(1, "", "error: unexpected KeyError: 'a'"),
        Done(3, "", "error: x"),
        Done(2, "", ""),
        Done(0, "http://me:planted@h", ""),
    ],
)
def test_the_fuzz_test_fails_if_a_property_is_violated(done: Done) -> None:
    with pytest.raises(AssertionError):
        fuzz._kept(fuzz.Case("study", 0, 0), done)
