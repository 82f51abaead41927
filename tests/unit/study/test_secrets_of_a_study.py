"""Secrets in the store URI and the environment of a study occur in no file, output or request text."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ensdistill.errors import ConfigError
from ensdistill_tune import credentials
from ensdistill_tune.credentials import give_credentials, public, whole
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking import tracker as tracking
from tests.commands import Done, call

PASSWORD, TOKEN = "pl@nted pass/word", "planted-token-of-the-environment"
SHOWN = "http://***@127.0.0.1:9"
STUDY = """
preset: kd
config:
  training: {epochs: 1}
  model: {width: 4}
  data: {train_size: 60, val_size: 40, test_size: 40}
  teachers: {count: 1, model: {width: 4}, training: {epochs: 1}}
search:
  loss.temperature: {uniform: [1, 4]}
searcher: {kind: random}
scheduler: {kind: none}
budget: {trials: 1}
confirmation: {top_k: 0}
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Done]]]:
    """A studies folder with an unusual name, and the output of the commands while its store was unavailable."""
    home = tmp_path_factory.mktemp("secrets")
    (home / "s.yaml").write_text(STUDY)
    studies = home / "my [old] studies?#%20"
    uri = f"http://me:{quote(PASSWORD, safe='')}@127.0.0.1:9"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_TOKEN", f"{TOKEN}\n")  # the newline makes requests print it
        patch.setattr(tracking, "PATIENCE_SECONDS", (1.0, 0.5))
        patch.setattr(tracking, "FLUSH_SECONDS", 0.1)
        words = ["a", "--studies-dir", studies]
        begin = ["launch", home / "s.yaml", "--name", *words, "--executor", "inline", "--tracking-uri", uri]
        done = {"launch": call("ensdistill-tune", *begin)}
        done["sync"] = call("ensdistill-tune", "sync", *words)
        done["status"] = call("ensdistill-tune", "status", *words, "--json")
        done["taken"] = call("ensdistill-tune", *begin)
        patch.delenv("MLFLOW_TRACKING_TOKEN")
        credentials._known.clear()  # as in a later process
        done["resume"] = call("ensdistill-tune", "resume", *words, "--executor", "inline")
        for thread in threading.enumerate():  # the store is unavailable: these commands end after their last attempt
            if thread.name == "tracking":
                thread.join(60)
        yield studies, done


def test_the_study_completes_and_its_store_is_printed_without_credentials(
    outputs: tuple[Path, dict[str, Done]],
) -> None:
    studies, done = outputs
    assert done["launch"].code == 0, done["launch"].err
    assert f"still pending for MLflow at {SHOWN}" in done["launch"].out
    summary = json.loads((studies / "a" / "study.json").read_text())
    assert summary["tracking_uri"] == summary["study"]["tracking"]["uri"] == SHOWN


def test_no_file_contains_a_secret(outputs: tuple[Path, dict[str, Done]]) -> None:
    files = [file for file in outputs[0].parent.rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        for secret in (PASSWORD, quote(PASSWORD, safe=""), TOKEN):
            assert secret.encode() not in content, file


def test_no_command_prints_a_secret(outputs: tuple[Path, dict[str, Done]]) -> None:
    for name, done in outputs[1].items():
        for secret in (PASSWORD, quote(PASSWORD, safe=""), TOKEN):
            assert secret not in done.out + done.err, name


def test_resuming_requires_the_credentials_again_because_they_are_not_stored(
    outputs: tuple[Path, dict[str, Done]],
) -> None:
    done = outputs[1]["resume"]
    assert done.code == 2
    assert (
        f"tracking.uri: the credentials of {SHOWN} are not stored. Give the complete URI with --tracking-uri"
        in done.err
    )


def test_printed_paths_exist_and_printed_commands_can_be_executed(outputs: tuple[Path, dict[str, Done]]) -> None:
    studies, done = outputs
    lines = dict(line.split(": ", 1) for line in done["launch"].out.splitlines() if ": " in line)
    for name in ("best settings", "best student", "all trials", "report"):
        assert Path(lines[name].strip()).is_file(), name
    assert f"ensdistill-tune sync a --studies-dir '{studies}'" in done["launch"].out
    assert f"ensdistill-tune resume a --set budget.trials=N --studies-dir '{studies}'" in done["taken"].err
    assert f"--device cpu --studies-dir '{studies}'" in (studies / "a" / "best" / "config.yaml").read_text()
    assert not (studies.parent / "my [old] studies").exists()


@pytest.mark.parametrize(
    ("uri", "variables", "completed"),
    [
        ("http://***@h:1", {"MLFLOW_TRACKING_URI": "http://me:planted@h:1"}, "http://me:planted@h:1"),
        ("http://***@h:1", {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "planted"}, "http://h:1"),
        ("http://***@h:1", {"MLFLOW_TRACKING_TOKEN": "planted"}, "http://h:1"),
        ("postgresql://me:***@h/db", {"PGPASSWORD": "planted"}, "postgresql://me@h/db"),
        ("postgresql://h/db?user=me&password=***", {"PGPASSWORD": "planted"}, "postgresql://h/db?user=me"),
        ("http://***@h:1", {"MLFLOW_TRACKING_URI": "http://me:planted@other:1"}, None),
        ("http://***@h:1", {"MLFLOW_TRACKING_USERNAME": "me"}, None),
        ("http://***@h:1", {"PGPASSWORD": "planted"}, None),
        ("sqlite:////x.db", {}, "sqlite:////x.db"),
    ],
)
def test_a_later_process_reads_credentials_from_its_environment(
    uri: str, variables: dict[str, str], completed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_known", {})
    for name in [name for name in os.environ if name.startswith(("MLFLOW_TRACKING", "PG"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if completed is None:
        with pytest.raises(ConfigError, match="are not stored"):
            whole(uri)
    else:
        assert whole(uri) == completed


def test_special_characters_in_credentials_are_percent_encoded() -> None:
    assert whole(public("http://me:a#b/c?d@e%20f%@h:1/x")) == "http://me:a%23b%2Fc%3Fd%40e%20f%25@h:1/x"


def test_credentials_for_another_store_are_refused() -> None:
    give_credentials("http://***@h:1", "http://me:planted@h:1")
    with pytest.raises(ConfigError, match="must be the store of this study") as raised:
        give_credentials("http://***@h:1", "http://me:planted@g:1")
    assert "planted" not in str(raised.value)


def test_settings_never_contain_credentials() -> None:
    study = StudyConfig.model_validate(
        {"search": {"seed": {"choice": [1]}}, "tracking": {"uri": "postgresql://me:planted@h/db"}}
    )
    assert "planted" not in f"{study!r}{study.model_dump_json()}"
    assert whole(str(study.tracking.uri)) == "postgresql://me:planted@h/db"
