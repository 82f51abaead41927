"""The default store of a moved studies folder, and a deleted experiment."""

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ensdistill_tune.tracking import default_store, run_index
from ensdistill_tune.tracking.default_store import relocate
from ensdistill_tune.tracking.run_index import find_experiment
from ensdistill_tune.tracking.target import MlflowTarget, check_uri, default_uri

OLD, NEW = "file:///old/artifacts", "file:///new/artifacts"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The tables of a store that contain locations, with runs of this project and of others."""
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.executescript(
            f"""
            CREATE TABLE experiments (name, artifact_location);
            CREATE TABLE runs (artifact_uri);
            CREATE TABLE model_versions (source, storage_location, name);
            INSERT INTO experiments VALUES ('ours', '{OLD}'), ('theirs', 'file:///old/artifacts-of-others');
            INSERT INTO runs VALUES ('{OLD}/1/artifacts'), ('file:///other/1/artifacts'), (NULL);
            INSERT INTO model_versions VALUES ('{OLD}/1/m', NULL, '{OLD}');
        """  # noqa: S608 - names of ours
        )
    return tmp_path / "mlflow.db"


def test_only_artifact_locations_below_the_old_folder_are_moved(database: Path) -> None:
    relocate(database, OLD, NEW)
    with sqlite3.connect(database) as connection:
        tables = ("experiments", "runs", "model_versions")
        rows = {t: connection.execute(f"SELECT * FROM {t}").fetchall() for t in tables}  # noqa: S608 - names of ours
    assert rows["experiments"] == [("ours", NEW), ("theirs", "file:///old/artifacts-of-others")]
    assert rows["runs"] == [(f"{NEW}/1/artifacts",), ("file:///other/1/artifacts",), (None,)]
    assert rows["model_versions"] == [(f"{NEW}/1/m", None, OLD)]


@pytest.mark.parametrize(
    ("mounts", "folder", "expected"),
    [
        ("/dev/a / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0", "/home/me/studies", "nfs4"),
        ("/dev/a / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0", "/homes/studies", "ext4"),
        ("/dev/a / ext4 rw 0 0\n/dev/b /my\\040disk xfs rw 0 0", "/my disk/studies", "xfs"),
        ("/dev/a / ext4 rw 0 0\n/dev/b /mé xfs rw 0 0", "/mé/studies", "xfs"),
        ("overlay /data overlay rw 0 0\nserver:/data /data nfs rw 0 0", "/data/studies", "nfs"),
        ("", "/studies", ""),
        (None, "/studies", ""),
    ],
)
def test_the_file_system_of_a_folder_is_that_of_the_deepest_and_last_mount(
    mounts: str | None, folder: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_store, "MOUNTS", tmp_path / "mounts")
    if mounts is not None:
        (tmp_path / "mounts").write_text(mounts)
    assert default_store.file_system(Path(folder)) == expected


@pytest.mark.parametrize(("kind", "mode"), [("ext4", "wal"), ("nfs4", "delete")])
def test_only_a_store_on_a_local_file_system_uses_write_ahead_logging(
    kind: str, mode: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_store, "file_system", lambda folder: kind)
    default_store.enable_write_ahead_log(database)
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # every commit is synced to the disk


def test_a_store_that_another_process_is_using_stays_unchanged(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_store, "file_system", lambda folder: "ext4")
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        default_store.enable_write_ahead_log(database)
        other.rollback()
        assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)


class Client:
    """A client of a store with one experiment."""

    def __init__(self, **experiment: Any) -> None:
        self.experiment = SimpleNamespace(experiment_id="7", **experiment)

    def get_experiment_by_name(self, name: str) -> SimpleNamespace:
        return self.experiment


def target(home: Path, *, default: bool) -> MlflowTarget:
    uri = default_uri(home) if default else "http://host:5000"
    return MlflowTarget(
        uri, "ours", "a [b]", "id", home / "a [b]", home / "artifacts", home / "mlflow.db" if default else None
    )


@pytest.mark.parametrize(
    ("default", "location", "moved"),
    [(True, OLD, True), (True, "s3://bucket/mine", False), (False, OLD, False)],
)
def test_only_the_default_store_gets_a_new_artifact_location(
    default: bool, location: str, moved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(run_index, "relocate", lambda *words: calls.append(words))
    client: Any = Client(lifecycle_stage="active", artifact_location=location)
    assert find_experiment(client, target(tmp_path, default=default)) == "7"
    own = (tmp_path / "artifacts").as_uri()
    assert calls == ([(tmp_path / "mlflow.db", OLD, own)] if moved else [])


def test_a_deleted_experiment_is_reported_with_two_ways_to_continue(tmp_path: Path) -> None:
    client: Any = Client(lifecycle_stage="deleted", artifact_location=OLD)
    with pytest.raises(Exception, match="the experiment ours was deleted in MLflow") as raised:
        find_experiment(client, target(tmp_path, default=True))
    told = str(raised.value)
    assert "mlflow experiments restore --experiment-id 7" in told
    assert f"ensdistill-tune resume 'a [b]' --set tracking.experiment=NAME --studies-dir {tmp_path}" in told


@pytest.mark.parametrize("name", ["plain", "a?b", "a#b", "100%", "a%20b", "[x] y", "ü"])
def test_the_default_store_is_a_file_in_the_studies_folder(name: str, tmp_path: Path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    (tmp_path / name).mkdir()
    uri = default_uri(tmp_path / name)
    assert sqlalchemy.make_url(uri).database == str(tmp_path / name / "mlflow.db")
    check_uri(uri)
