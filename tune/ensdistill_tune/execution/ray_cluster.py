"""Starts Ray or connects to a cluster. Checks the environment first, because Ray reports errors late and unclearly."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.tune.execution import class_cache

from ensdistill.errors import DataError
from ensdistill.runtime.boundary import cause_of
from ensdistill.runtime.files import ensure_writable_dir
from ensdistill_tune.execution.environment import default_variables, restored

LOCAL = "local"  # the address that starts Ray on this machine
VARIABLES = ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR")
SESSION = "ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store.1"  # Ray's longest socket path
LONGEST = 107  # maximum length of a socket path in bytes; 103 on macOS


@contextlib.contextmanager
def running_ray(environment: Mapping[str, str]) -> Iterator[bool]:
    """Provides Ray inside the block.

    If this process already uses Ray, the existing instance is used and keeps running. Otherwise, a new instance is
    started, and is shut down after the block.

    Args:
        environment: Environment variables for a new instance; variables that the user has set keep their values.

    Yields:
        Whether the instance may include other machines, or processes that run in another Python environment.

    Raises:
        DataError: Ray cannot be started, or this process uses Ray Client.
    """
    if not ray.is_initialized():
        with restored(*VARIABLES), default_variables(environment):
            address = start_ray()
            try:
                with inherited_environment() if address == LOCAL else contextlib.nullcontext():
                    yield address != LOCAL
            finally:
                # In this thread, because Ray ends the process if a thread frees a reference during the shutdown.
                ray.shutdown()
        return
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        raise DataError(
            "ray.init: must be a direct connection to the cluster, but this process uses Ray Client. Call "
            "ray.shutdown(), or launch the study on a machine of the cluster."
        )
    yield True


@contextlib.contextmanager
def inherited_environment() -> Iterator[None]:
    """Makes trials inside the block run in worker processes that Ray has started in advance.

    Tune requests processes with additional environment variables, and Ray starts new processes for them. On this
    machine, these variables are not needed, because all workers inherit the variables of this process. In a Ray version
    without these names, trials run in new processes.
    """
    names = {"DEFAULT_ENV_VARS": {}, "ENV_VARS_TO_PROPAGATE": frozenset[str]()}
    with contextlib.ExitStack() as stack:
        for name, empty in names.items():
            if hasattr(class_cache, name):
                stack.callback(setattr, class_cache, name, getattr(class_cache, name))
                setattr(class_cache, name, empty)
        yield


def start_ray() -> str:
    """Starts Ray on this machine, or connects to the cluster at RAY_ADDRESS.

    Returns:
        The address.

    Raises:
        DataError: The address or the temporary folder cannot be used, or no cluster answers at the address.
    """
    for name in VARIABLES:
        if not os.environ.get(name, "unset").strip():
            # Ray would interpret an empty value, which an env file may contain, as an address or a folder.
            del os.environ[name]
    address = os.environ.get("RAY_ADDRESS", LOCAL).strip()
    check_address(address)
    local: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    if local:
        check_temporary_folder()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # Ray raises a dozen different exception types
        raise DataError(_not_started(address, cause_of(error))) from error
    return address


def check_address(address: str) -> None:
    """Checks that a Ray cluster answers at an address; without this check, Ray would wait for minutes.

    Args:
        address: `local`, `auto` or HOST:PORT.

    Raises:
        DataError: The address is malformed, uses Ray Client, or does not accept a connection within 5 seconds.
    """
    if address in (LOCAL, "auto"):
        return
    if address.startswith("ray://"):
        raise DataError(
            f"RAY_ADDRESS: must be a direct connection, not Ray Client, got {address}. Run the study on a machine of "
            "the cluster with RAY_ADDRESS=HOST:6379 or RAY_ADDRESS=auto."
        )
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal() or int(port) > 65535:
        raise DataError(
            f"RAY_ADDRESS: must be HOST:PORT, auto or local, got {address}. Unset it to run on this machine."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, UnicodeError) as error:
        raise DataError(
            f"RAY_ADDRESS {address}: no Ray cluster answers there; unset it to run on this machine"
        ) from error


def check_temporary_folder() -> None:
    """Checks the temporary folder in which Ray stores its files and sockets.

    Raises:
        DataError: The path is relative or too long, or the folder is not writable.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "RAY_TMPDIR")
    root = os.environ.get(variable, "/tmp")  # noqa: S108 - Ray's default
    fix = "Set RAY_TMPDIR to another folder, such as /tmp."
    if not os.path.isabs(root):
        raise DataError(f"{variable}: must be an absolute path, got {root}. {fix}")
    room = LONGEST - len(SESSION.format(pid=os.getpid())) - 1
    if len(os.fsencode(root)) > room:
        raise DataError(
            f"{variable}: must be at most {room} characters long, because Ray creates sockets there, got {root}. {fix}"
        )
    try:
        ensure_writable_dir(Path(root, "ray"))
    except DataError as error:
        reason = cause_of(error.__cause__ or error)
        raise DataError(f"{variable}: must be writable for Ray, but is not ({reason}). {fix}") from error


def _not_started(address: str, reason: str) -> str:
    if address == LOCAL:
        return f"Ray cannot be started on this machine ({reason})"
    token = "" if "RAY_AUTH_MODE" in os.environ else "; if the cluster requires a token, set RAY_AUTH_MODE=token"
    return f"RAY_ADDRESS {address}: connecting to Ray failed ({reason}){token}"
