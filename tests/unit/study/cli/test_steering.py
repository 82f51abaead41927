"""`enqueue` and `stop` print the outcome of a request."""

from pathlib import Path
from typing import Any

import pytest

from ensdistill_tune import steering
from tests.commands import call


@pytest.mark.parametrize(
    ("words", "answer", "message"),
    [
        (("enqueue", "s", "--set", "loss.temperature=2"), "accepted", "the next trial of the search will use these"),
        (
            ("enqueue", "s", "--set", "loss.temperature=2"),
            "waiting",
            "or when the study is resumed with `ensdistill-tune resume s",
        ),
        (("stop", "s"), "accepted", "the study is stopping; to resume: `ensdistill-tune resume s"),
        (("stop", "s", "--trial", "3"), "accepted", "trial 3 will stop at its next report"),
        (("stop", "s"), "waiting", "request pending: it will be handled soon"),
    ],
)
def test_the_answer_to_a_request_is_printed(
    words: tuple[str, ...], answer: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def request(home: Path, what: Any = None) -> str:
        sent.append((home, what))
        return answer

    monkeypatch.setattr(steering, words[0], request)
    done = call("ensdistill-tune", *words, "--studies-dir", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert message in done.out
    what = {"loss.temperature": 2} if words[0] == "enqueue" else 3 if "--trial" in words else None
    assert sent == [(tmp_path / "s", what)]
