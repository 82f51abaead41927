"""Console output: progress bars in a terminal, plain lines elsewhere, nothing inside `silence`."""

import io
import threading

import pytest

from ensdistill.errors import ConfigIssue
from ensdistill.runtime.progress_bar import console, is_silent, progress, show_warnings, silence


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("notebook", [False, True])
def test_a_notebook_is_not_treated_as_a_terminal_even_if_its_output_stream_is_one(
    notebook: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("rich.console._is_jupyter", lambda: notebook)
    monkeypatch.setenv("TERM", "xterm")
    assert console().is_terminal is not notebook
    assert console().is_interactive is not notebook


def test_silence_suppresses_only_the_output_of_the_current_thread(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        console().print("of another thread")

    thread = threading.Thread(target=work)
    with silence():
        console().print("a line")
        show_warnings([ConfigIssue((), "a warning")])
        with progress("teachers", 1) as advance:
            advance(1, "")
        assert not console().is_interactive
        thread.start()
        thread.join()
    assert not is_silent()
    assert capsys.readouterr() == ("of another thread\n", "")
