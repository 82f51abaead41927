"""Errors and warnings as data: fields are preserved by pickling and JSON, and the text is built from them."""

import json
import math
import pickle
from pathlib import Path

import pytest

from ensdistill.errors import NO_VALUE, ConfigIssue


@pytest.mark.parametrize(
    ("issue", "text"),
    [
        (ConfigIssue(("data", "path"), "3 files were left out"), "data.path: 3 files were left out"),
        (ConfigIssue(("a", 0), "must be at most 1", 2, "lower it"), "a.0: must be at most 1, got 2. Lower it."),
        (ConfigIssue((), "no images"), "no images"),
        (ConfigIssue(("a",), "must be given", None), "a: must be given, got null"),
    ],
)
def test_the_text_of_an_issue_is_built_from_its_fields(issue: ConfigIssue, text: str) -> None:
    assert str(issue) == text


def test_an_issue_without_a_value_still_has_no_value_after_pickling() -> None:
    issue: ConfigIssue = pickle.loads(pickle.dumps(ConfigIssue(("a",), "rule")))  # noqa: S301 - our own bytes
    assert issue.value is NO_VALUE


@pytest.mark.parametrize("value", [NO_VALUE, None, 3, 0.5, "x", [1, {"b": 2}]])
def test_an_issue_is_restored_unchanged_from_its_row(value: object) -> None:
    issue = ConfigIssue(("a", 1), "rule", value, "hint")
    assert ConfigIssue.from_row(json.loads(json.dumps(issue.as_row(), allow_nan=False))) == issue


@pytest.mark.parametrize(("value", "plain"), [(math.nan, "nan"), (Path("x"), "x"), ((1, math.inf), [1, "inf"])])
def test_values_that_json_cannot_represent_are_stored_as_text(value: object, plain: object) -> None:
    assert json.loads(json.dumps(ConfigIssue((), "rule", value).as_row(), allow_nan=False))["value"] == plain
