"""Random edits of data, 25 of each kind: each case is read or rejected, and no file is lost silently."""

import pytest

from tests.fuzz_data import Case, cases, failure, outcome


@pytest.mark.parametrize("kind", ["npz", "zip", "folder"])
def test_randomly_edited_data_are_read_or_raise_an_error_class_defined_in_this_project(kind: str) -> None:
    outcomes = list[str]()
    tried = [case for case in cases(0, 25) if case.kind == kind]
    assert [told for case in tried if (told := failure(case, lambda case: outcomes.append(outcome(case))))] == []
    assert {one.partition(":")[0] for one in outcomes} == {"read", "refused"}
    assert len(outcomes) == 25


def test_the_fuzz_test_fails_if_a_file_is_ignored_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensdistill.data.image_folder._about_files", lambda found, layout: ())
    lost = [str(failure(Case("folder", n, 0), outcome)) for n in range(25)]
    assert any("AssertionError" in one and "named of" in one for one in lost)


def test_the_fuzz_test_fails_on_an_exception_of_another_library() -> None:
    assert "ZeroDivisionError" in str(failure(Case("npz", 0, 0), lambda case: 1 / 0))
