"""Environment variables for Ray are checked before training, and errors name the variable."""

import os
import socket
from pathlib import Path

import pytest
from ray.tune.execution import class_cache

from ensdistill.errors import DataError
from ensdistill_tune.execution import ray_cluster as ray_start
from ensdistill_tune.execution.ray_cluster import (
    check_address,
    check_temporary_folder,
    inherited_environment,
    running_ray,
    start_ray,
)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses with which Ray was started."""
    addresses: list[str] = []
    monkeypatch.setattr(ray_start.ray, "init", lambda address, **_: addresses.append(address))
    for name in ray_start.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return addresses


@pytest.mark.parametrize("value", ["", "  ", "local", " local "])
def test_an_empty_address_is_ignored(value: str, started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    start_ray()
    assert started == ["local"]
    assert os.environ.get("RAY_ADDRESS") != ""  # workers would use it


def test_spaces_around_an_address_are_removed(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", f" {address}\t")
        start_ray()
    assert started == [address]


def test_environment_variables_of_an_instance_are_restored_and_those_of_the_user_are_kept(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_USER", "kept")
    monkeypatch.delenv("OF_STUDY", raising=False)
    monkeypatch.setattr(ray_start.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_start.ray, "shutdown", lambda: None)
    before = (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)
    with running_ray({"OF_USER": "changed", "OF_STUDY": "set"}) as shared:
        assert (shared, os.environ["OF_USER"], os.environ["OF_STUDY"]) == (False, "kept", "set")
        assert not class_cache.DEFAULT_ENV_VARS
        assert not class_cache.ENV_VARS_TO_PROPAGATE
    assert started == ["local"]
    assert "OF_STUDY" not in os.environ
    assert before == (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)


def test_another_version_of_ray_without_tunes_variables_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(class_cache, "ENV_VARS_TO_PROPAGATE")
    with inherited_environment():
        assert not class_cache.DEFAULT_ENV_VARS
    assert class_cache.DEFAULT_ENV_VARS


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://head:10001", "not Ray Client"),
        ("http://head:8265", "must be HOST:PORT, auto or local"),
        ("head", "must be HOST:PORT, auto or local"),
        ("head:", "must be HOST:PORT, auto or local"),
        (":6379", "must be HOST:PORT, auto or local"),
        ("head:99999", "must be HOST:PORT, auto or local"),
        ("AUTO", "must be HOST:PORT, auto or local"),
        ("127.0.0.1:9", "no Ray cluster answers there"),
        ("[::1]:9", "no Ray cluster answers there"),
        ("no-such-host.invalid:6379", "no Ray cluster answers there"),
        ("x" * 300 + ":6379", "no Ray cluster answers there"),
    ],
)
def test_an_address_that_cannot_be_used_is_reported_together_with_the_reason(address: str, told: str) -> None:
    with pytest.raises(DataError, match=told) as raised:
        check_address(address)
    assert address in str(raised.value)
    assert "token" not in str(raised.value)


def test_the_error_message_states_the_reason_why_ray_does_not_start(
    started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(**_: object) -> None:
        raise TimeoutError("the raylet did not answer\nmore")

    monkeypatch.setattr(ray_start.ray, "init", refuse)
    with pytest.raises(DataError, match=r"started on this machine \(TimeoutError: the raylet did not answer\)$"):
        start_ray()


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("long" * 20, "must be at most"),
        ("ü" * 40, "must be at most"),  # the limit counts bytes
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
    ],
)
def test_a_temporary_folder_that_ray_cannot_use_is_refused(
    variable: str, name: str, told: str, started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, f"{tmp_path}/{name}")
    monkeypatch.setattr(ray_start, "LONGEST", len(str(tmp_path)) + 100)
    with pytest.raises(DataError, match=f"^{variable}: .*{told}.*Set RAY_TMPDIR to another folder"):
        start_ray()
    assert not started


def test_a_relative_temporary_folder_is_refused(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "scratch")
    with pytest.raises(DataError, match="absolute path"):
        start_ray()


@pytest.mark.parametrize("name", ["a b", "new/deeper", "[x]", "ü"])
def test_a_temporary_folder_with_an_unusual_name_is_accepted_if_ray_can_use_it(
    name: str, started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    monkeypatch.setattr(ray_start, "LONGEST", 1000)
    start_ray()
    assert started == ["local"]


def test_the_longest_accepted_path_is_the_longest_that_ray_accepts(
    started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    validate = pytest.importorskip("ray._private.utils").validate_socket_filepath
    session = ray_start.SESSION.format(pid=os.getpid())
    for length in (1, 20, 30, 35, 40, 50, 60):
        root = f"/{'x' * length}"
        monkeypatch.setenv("RAY_TMPDIR", root)
        monkeypatch.setattr(ray_start, "ensure_writable_dir", lambda folder: folder)
        try:
            validate(f"{root}/{session}")
        except OSError:
            with pytest.raises(DataError):
                check_temporary_folder()
        else:
            check_temporary_folder()


def test_the_temporary_folder_of_a_remote_cluster_is_not_checked(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "x" * 200)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    start_ray()
    assert started == ["auto"]
