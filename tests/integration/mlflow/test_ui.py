"""`ensdistill-tune ui` finds the MLflow pages of a study, serves and opens them, and stops at Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking import server as ui
from tests.commands import call
from tests.servers import free_port, listens, wait_until
from tests.tiny import TinyStudy

BROWSER = """#!{python}
import sys, urllib.request
status = urllib.request.urlopen(sys.argv[1].partition("#")[0]).status
open({log!r}, "w").write(f"{{status}} {{sys.argv[1]}}")
"""


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A folder with a study whose runs are on a remote server."""
    study = StudyConfig.model_validate(
        {"search": {"seed": {"choice": [1]}}, "tracking": {"uri": "http://me:pw@far:81/"}}
    )
    summary = {"name": "there", "study": study.model_dump(mode="json"), "state": "finished"}
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "study.json").write_text(json.dumps(summary))
    return tmp_path


def test_ui_starts_a_server_and_opens_the_study_page_and_stops_the_server_on_ctrl_c(
    tiny: TinyStudy, tmp_path: Path
) -> None:
    port, log, browser = free_port(), tmp_path / "opened", tmp_path / "browser"
    browser.write_text(BROWSER.format(python=sys.executable, log=str(log)))
    browser.chmod(0o755)
    words = [
        sys.executable,
        "-m",
        "ensdistill_tune",
        "ui",
        "tiny",
        "--open",
        "--port",
        str(port),
        "--studies-dir",
        tiny.studies,
    ]
    serving = subprocess.Popen(
        list(map(str, words)),
        env=os.environ | {"BROWSER": str(browser)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: log.exists() and log.read_text().startswith("200 "), "the page is opened", 90)
    finally:
        os.killpg(serving.pid, signal.SIGINT)
        output, _ = serving.communicate(timeout=30)  # until neither server nor worker holds the pipe
    assert serving.returncode == 0
    comparison, study = re.findall(r"^(?:compare tiny|study tiny): (http\S+)$", output, re.MULTILINE)
    assert log.read_text() == f"200 {comparison}"
    assert comparison.replace(f":{port}", ":5000") in tiny.done.out
    assert re.search(r"/#/experiments/1/runs/[0-9a-f]{32}\?", study)
    assert "Traceback" not in output
    assert not listens(port)


def test_one_mlflow_page_shows_all_studies(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui, "_serve", lambda uri, port, page: print(uri))
    port = free_port()
    ui.ui(tiny.studies, None, None, port, show=False)
    *_, link, uri = capsys.readouterr().out.splitlines()
    assert uri == tiny.summary["tracking_uri"]
    address = f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=studies"
    assert link == f"studies of experiment ensdistill: {address}"


def test_for_a_study_on_a_remote_server_a_link_is_printed_and_no_server_is_started(remote: Path) -> None:
    pages = {"experiment": "7", "run": "abc", "view": "there-123456"}
    (remote / "there" / "tracking.json").write_text(json.dumps({"pages": pages}))
    done = call("ensdistill-tune", "ui", "there", "--studies-dir", remote)
    assert done.code == 0
    first, comparison, study = done.out.splitlines()
    assert first == "the runs are on http://far:81; no server is started here"
    assert comparison.startswith("compare there: http://far:81/#/experiments/7/runs?")
    assert "viewStateShareKey=there-123456&compareRunsMode=CHART" in comparison
    assert study.startswith("study there: http://far:81/#/experiments/7/runs/abc?")


def test_a_study_without_an_mlflow_run_is_reported(remote: Path) -> None:
    done = call("ensdistill-tune", "ui", "there", "--studies-dir", remote)
    assert done.code == 2
    assert (
        f"MLflow has received no events of this study; `ensdistill-tune sync there --studies-dir {remote}` sends them"
        in done.err
    )


@pytest.mark.parametrize("words", [("nobody",), ()])
def test_a_missing_study_is_reported(words: tuple[str, ...], tmp_path: Path) -> None:
    done = call("ensdistill-tune", "ui", *words, "--studies-dir", tmp_path)
    assert done.code == 2
    assert "no study in this folder" in done.err
