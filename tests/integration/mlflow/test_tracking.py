"""MLflow receives every event exactly once, whatever fails, and the study never waits for it."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from ensdistill.errors import ConfigError
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import EpochReported, Event, SessionEnded, TrialStarted
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking import tracker as tracking
from ensdistill_tune.tracking.target import MlflowTarget, check_uri
from ensdistill_tune.tracking.tracker import MlflowTracker
from tests.commands import call
from tests.end_to_end import chaos
from tests.servers import MlflowServer, Postgres, wait_until
from tests.tiny import TinyStudy

CURVES = ("val/nll", "val/accuracy", "val/brier", "val/ece", "val/cnll", "val/dee", "train/loss")


@pytest.fixture(params=["sqlite", "postgres", "http_on_sqlite", "http_on_postgres"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of each kind of store in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mlflow.db'}"
    return str(request.getfixturevalue(request.param).uri)


@pytest.fixture
def events(tiny: TinyStudy) -> list[Event]:
    return read_journal(tiny.home / "events.jsonl")


@pytest.fixture
def tracker(tiny: TinyStudy, tmp_path: Path) -> Callable[..., MlflowTracker]:
    """Returns trackers of a copy of the tiny study with a separate identity."""
    home = tmp_path / "copy"
    shutil.copytree(tiny.home, home)
    (home / "tracking.json").unlink()
    study = StudyConfig.model_validate(tiny.summary["study"])

    def made(uri: str, past: list[Event]) -> MlflowTracker:
        place = MlflowTarget(uri, "tracked", "copy", str(tmp_path), home, tmp_path / "artifacts")
        return MlflowTracker(place, study, past)

    return made


def stored(uri: str, identity: str) -> dict[str, Any]:
    """Returns status, outcome and points of every run of a study; asserts that there are no duplicates."""
    client = MlflowClient(uri)
    known = client.get_experiment_by_name("tracked")
    assert known is not None
    runs = client.search_runs([known.experiment_id], f"tags.study_id = '{identity}'", max_results=1000)
    assert len({run.data.tags["trial"] for run in runs}) == len(runs)
    found = {}
    for run in runs:
        points = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        plain = {name: sorted((p.step, p.value) for p in some) for name, some in points.items()}
        assert all(len({step for step, _ in some}) == len(some) for some in plain.values())
        found[run.data.tags["trial"]] = (run.info.status, run.data.tags["outcome"], plain, run.data.params)
    return found


def assert_all_is_there(found: dict[str, Any], home: Path) -> None:
    """Asserts that every trial and point in the event log is stored once, and that no run has the status RUNNING."""
    trials = StudyDirectory(home).read_trials()
    assert set(found) == {"0", *(str(trial.number) for trial in trials)}
    assert "RUNNING" not in {status for status, *_ in found.values()}
    for trial in trials:
        status, outcome, points, params = found[str(trial.number)]
        assert (status, outcome) == (
            {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}[trial.state],
            trial.state,
        )
        assert params
        for name in CURVES:
            assert points.get(name, []) == [(int(epoch["epoch"]), epoch[name]) for epoch in trial.epochs]
        if trial.epochs:
            assert points["cost/flops"] == [(0, trial.last["cost/flops"])]
    finished = sum(trial.state == "finished" for trial in trials if trial.replicate_of is None)
    assert found["0"][2]["trials/finished"][-1][1] == finished


def test_a_study_sent_repeatedly_to_mlflow_is_stored_once(
    uri: str, events: list[Event], tracker: Callable[..., MlflowTracker], tiny: TinyStudy, tmp_path: Path
) -> None:
    first = None
    for known in (len(events) // 3, len(events) * 2 // 3, len(events), len(events)):
        (tmp_path / "copy" / "tracking.json").unlink(missing_ok=True)  # as if no record of the sent events existed
        one = tracker(uri, events[:known])
        one.start()
        assert one.close() == 0, one.trouble
        first = first or stored(uri, str(tmp_path))
    last = stored(uri, str(tmp_path))
    assert_all_is_there(last, tiny.home)
    assert set(first or {}) < set(last)


def test_sent_events_are_not_sent_again(
    events: list[Event], tracker: Callable[..., MlflowTracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for known, expected in ((40, 40), (len(events), len(events) - 40)):
        one, sent = tracker(uri, events[:known]), list[int]()
        send = one._writer.send
        monkeypatch.setattr(one._writer, "send", lambda some, s=send, n=sent: (n.append(len(some)), s(some)))
        one.start()
        assert one.close() == 0
        assert sum(sent) == expected


def test_a_file_keeps_its_subfolder_and_is_uploaded_again_only_if_it_has_changed(
    events: list[Event], tracker: Callable[..., MlflowTracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, sent = tmp_path / "copy", list[str]()
    log = MlflowClient.log_artifact
    monkeypatch.setattr(MlflowClient, "log_artifact", lambda *given: (sent.append(Path(given[2]).name), log(*given))[1])
    (home / "figures").mkdir(exist_ok=True)
    (home / "figures" / "curves.html").write_text("<p>one</p>")
    assert isinstance(events[-1], SessionEnded)
    last = events[-1].model_copy(update={"files": ["best/config.yaml", "figures/curves.html"]})
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    past = events[:-1]
    for text, expected in (("one", ["config.yaml", "curves.html"]), ("one", []), ("two", ["curves.html"])):
        (home / "figures" / "curves.html").write_text(f"<p>{text}</p>")
        sent.clear()
        past = [*past, last]
        one = tracker(uri, past)
        one.start()
        assert one.close() == 0, one.trouble
        assert [name for name in sent if name != "confirmed_means.svg"] == expected  # reconstructed from the event
    assert one.pages is not None
    client, run = MlflowClient(uri), one.pages.run
    assert [file.path for file in client.list_artifacts(run, "figures")] == [
        "figures/confirmed_means.svg",
        "figures/curves.html",
    ]
    assert Path(client.download_artifacts(run, "figures/curves.html", str(tmp_path))).read_text() == "<p>two</p>"


def test_a_store_that_was_emptied_receives_all_events_again(
    events: list[Event], tracker: Callable[..., MlflowTracker], tiny: TinyStudy, tmp_path: Path
) -> None:
    for name in ("one.db", "two.db"):
        one = tracker(f"sqlite:///{tmp_path / name}", events)
        one.start()
        assert one.close() == 0
        assert_all_is_there(stored(f"sqlite:///{tmp_path / name}", str(tmp_path)), tiny.home)


def test_events_sent_to_one_store_are_still_pending_for_another_store(
    events: list[Event], tracker: Callable[..., MlflowTracker], tiny: TinyStudy, tmp_path: Path
) -> None:
    half = len(events) // 2
    for name, known in (("one.db", half), ("two.db", len(events)), ("one.db", len(events))):
        one = tracker(f"sqlite:///{tmp_path / name}", events[:known])
        one.start()
        assert one.close() == 0
    assert_all_is_there(stored(f"sqlite:///{tmp_path / 'one.db'}", str(tmp_path)), tiny.home)


def test_a_deleted_mlflow_run_does_not_stop_the_study(
    events: list[Event], tracker: Callable[..., MlflowTracker], tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    started = next(n for n, event in enumerate(events) if isinstance(event, EpochReported)) + 1
    one = tracker(uri, events[:started])
    one.start()
    assert one.close() == 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tracked").experiment_id
    (run, *_) = client.search_runs([experiment], "tags.kind = 'trial'")
    client.delete_run(run.info.run_id)
    two = tracker(uri, events)
    two.start()
    assert two.close() == 0
    assert two.refused
    assert len(stored(uri, str(tmp_path))) == len([e for e in events if isinstance(e, TrialStarted)])


def test_the_empty_duplicate_of_a_trial_run_is_deleted(
    events: list[Event], tracker: Callable[..., MlflowTracker], tiny: TinyStudy, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    one = tracker(uri, events[: len(events) // 2])
    one.start()
    assert one.close() == 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tracked").experiment_id
    ghost = client.create_run(experiment, tags={"study_id": str(tmp_path), "trial": "1", "kind": "trial"})
    two = tracker(uri, events)
    two.start()
    assert two.close() == 0
    assert client.get_run(ghost.info.run_id).info.lifecycle_stage == "deleted"
    assert_all_is_there(stored(uri, str(tmp_path)), tiny.home)


def test_no_event_is_lost_when_the_server_restarts(
    http_on_sqlite: MlflowServer,
    events: list[Event],
    tracker: Callable[..., MlflowTracker],
    tiny: TinyStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", (0.1, 0.5))
    third = len(events) // 3
    one = tracker(http_on_sqlite.uri, events[:third])
    one.start()
    wait_until(lambda: one.sent == third, "the first third is sent")
    http_on_sqlite.kill()
    for event in events[third : 2 * third]:
        one.on_event(event)
    wait_until(lambda: one.trouble is not None, "the tracker notices")
    assert one.sent == third
    http_on_sqlite.start()
    wait_until(lambda: one.sent == 2 * third, "the second third is sent")
    for event in events[2 * third :]:
        one.on_event(event)
    assert one.close() == 0
    assert_all_is_there(stored(http_on_sqlite.uri, str(tmp_path)), tiny.home)


def test_without_a_server_a_study_waits_only_a_few_seconds_at_its_end_and_loses_no_event(
    events: list[Event],
    tracker: Callable[..., MlflowTracker],
    tiny: TinyStudy,
    tmp_path: Path,
    http_on_sqlite: MlflowServer,
) -> None:
    http_on_sqlite.kill()
    one = tracker(http_on_sqlite.uri, events)
    one.start()
    began = time.monotonic()
    assert one.close() == len(events)
    assert time.monotonic() - began < 15
    http_on_sqlite.start()
    two = tracker(http_on_sqlite.uri, events)
    two.start()
    assert two.close() == 0
    assert_all_is_there(stored(http_on_sqlite.uri, str(tmp_path)), tiny.home)


def test_a_study_waits_at_its_end_for_as_long_as_the_server_accepts_events(
    events: list[Event], tracker: Callable[..., MlflowTracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, clock = tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", events[:20]), [0.0]
    left: list[Any] = events[:20]

    def one_more_is_taken(_: float) -> None:
        clock[0] += 0.9 * min(tracking.PATIENCE_SECONDS)
        one._writer.send([left.pop()])
        one.sent = 0 if left else 20  # it counts events that are sent in one batch

    monkeypatch.setattr(one._writer, "_write", lambda _: None)
    monkeypatch.setattr(one, "_thread", SimpleNamespace(is_alive=lambda: bool(left), join=one_more_is_taken))
    monkeypatch.setattr(tracking, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert one.close() == 0


def test_no_event_is_lost_when_postgresql_restarts(
    postgres: Postgres,
    events: list[Event],
    tracker: Callable[..., MlflowTracker],
    tiny: TinyStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", (0.1, 0.5))
    half = len(events) // 2
    one = tracker(postgres.uri, events[:half])
    one.start()
    wait_until(lambda: one.sent == half, "the first half is sent")
    postgres.stop()
    for event in events[half:]:
        one.on_event(event)
    time.sleep(1)
    postgres.start()
    wait_until(lambda: one.sent == len(events), "the second half is sent")
    assert one.close() == 0
    assert_all_is_there(stored(postgres.uri, str(tmp_path)), tiny.home)


def test_a_study_continues_without_losing_events_while_its_server_is_unreachable(
    http_on_sqlite: MlflowServer, tmp_path: Path
) -> None:
    settings = f"{chaos.STUDY}tracking: {{uri: '{http_on_sqlite.uri}', experiment: tracked}}\n"
    home = tmp_path / "studies" / "outage"
    study = chaos.launched(tmp_path, "outage", settings, executor="inline")
    events = lambda: len(read_journal(home / "events.jsonl"))  # noqa: E731
    wait_until(lambda: events() > 40, "the study runs", 120)
    http_on_sqlite.kill()
    left = events()
    wait_until(lambda: events() > left + 60, "the study goes on without its server", 60)
    http_on_sqlite.start()
    output, _ = study.communicate(timeout=300)
    assert study.returncode == 0, output
    identity = json.loads((home / "study.json").read_text())["study_id"]
    if "still pending for MLflow" in output:  # the session ended before the tracker retried
        assert call("ensdistill-tune", "sync", "outage", "--studies-dir", tmp_path / "studies").code == 0
    assert_all_is_there(stored(http_on_sqlite.uri, identity), home)


def test_a_study_completes_without_a_response_from_its_server_and_its_events_are_sent_later(
    http_on_sqlite: MlflowServer, tmp_path: Path
) -> None:
    http_on_sqlite.kill()
    quick = chaos.STUDY.replace("budget: {trials: 12}", "budget: {trials: 2}")
    settings = f"{quick}tracking: {{uri: '{http_on_sqlite.uri}', experiment: tracked}}\n"
    study = chaos.launched(tmp_path, "alone", settings, executor="inline")
    output, _ = study.communicate(timeout=300)
    assert study.returncode == 0, output
    words = ("sync", "alone", "--studies-dir", tmp_path / "studies")
    assert f"nothing is lost; to send later: ensdistill-tune {' '.join(map(str, words))}" in " ".join(output.split())
    refused = call("ensdistill-tune", *words)
    assert refused.code == 2
    assert "events still pending for MLflow" in refused.err
    http_on_sqlite.start()
    assert call("ensdistill-tune", *words).out == "MLflow is up to date\n"
    home = tmp_path / "studies" / "alone"
    identity = json.loads((home / "study.json").read_text())["study_id"]
    assert_all_is_there(stored(http_on_sqlite.uri, identity), home)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nonsense://x", "MLflow has no such store"),
        ("mlruns", "MLflow has no such store"),
        ("sqlite:////no/such/folder/mlflow.db", "the folder /no/such/folder does not exist"),
        ("postgresql+nodriver://x/y", "the driver nodriver is not installed"),
    ],
)
def test_an_unusable_store_is_reported_before_any_work_starts(uri: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_uri(uri)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "postgresql://nobody@127.0.0.1:1/none", "sqlite:///mlflow.db"])
def test_the_uri_of_a_store_is_accepted_even_if_the_store_is_unreachable(uri: str) -> None:
    check_uri(uri)
