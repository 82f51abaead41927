"""Runs an MLflow server on this machine, and prints links to the pages of studies."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.command_line import command_line
from ensdistill_tune.credentials import public, whole
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.tracking.run_fields import address_of
from ensdistill_tune.tracking.target import default_uri
from ensdistill_tune.tracking.tracker import known_pages
from ensdistill_tune.tracking.views import studies_page


def ui(studies: Path, name: str | None, given: str | None, port: int, *, show: bool) -> int:
    """Prints the links of one study or of all studies, and serves the pages until Ctrl-C.

    If the runs are on a server, the links to that server are printed and the command returns.

    Args:
        studies: Folder that contains all studies.
        name: Name of the study; None for all studies.
        given: URI of the store; None for the store of the study.
        port: Port of the server.
        show: Whether the first link is opened in a browser.

    Returns:
        The exit code.
    """
    uri = public(given) if given else _store_of(studies, name)
    remote = uri.startswith("http")
    address = address_of(uri) if remote else f"http://127.0.0.1:{port}"
    links = _links(studies, name, uri, address)
    if remote:
        print(f"the runs are on {address}; no server is started here")
    else:
        _check_port(port)
        print(f"MLflow for {studies}: {address}   (available in a few seconds; stop with Ctrl-C)")
        print('sidebar: select "Model training" once; otherwise MLflow shows runs on its GenAI pages')
    for what, link in links:
        print(f"{what}: {link}", flush=True)
    page = links[0][1] if show else None
    return _serve(uri, port, page) if not remote else _open(page)


def _serve(uri: str, port: int, page: str | None) -> int:
    """Runs the MLflow server until it is stopped; opens the page when the server answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-opts", "--log-level warning"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    environment["MLFLOW_BACKEND_STORE_URI"] = whole(uri)  # keeps credentials out of the process list
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # these signals also stop the server
    # The server runs in a separate session: Ctrl-C reaches it only once, through this process, so it exits quietly.
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    server = subprocess.Popen(command, env=environment, start_new_session=True, **output)  # noqa: S603
    printing = threading.Thread(target=_print_all, args=(server.stdout,), daemon=True)
    printing.start()
    try:
        while page and server.poll() is None and not _answers(port):
            time.sleep(0.1)
        _open(page)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()
        printing.join(1)


def _print_all(lines: Iterable[str]) -> None:
    """Prints the output of the server; the output filter of this process masks credentials."""
    for line in lines:
        with contextlib.suppress(OSError):
            print(line, end="", flush=True)


def _open(page: str | None) -> int:
    """Opens a page in the user's browser. Prints a hint if no browser is available."""
    if page and not webbrowser.open(page):
        print("no browser was found; open the link manually", flush=True)
    return 0


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _store_of(studies: Path, name: str | None) -> str:
    """Returns the URI of a study's store, or that of the default store."""
    default = default_uri(studies)
    if name is not None:
        return public(_summary(studies / name)["study"]["tracking"]["uri"] or default)
    if not (studies / "mlflow.db").exists():
        raise DataError(f"{studies}: no study in this folder; `ensdistill-tune launch FILE` runs one")
    return default


def _links(studies: Path, name: str | None, uri: str, address: str) -> list[tuple[str, str]]:
    """Returns titles and links, the most important link first."""
    if name is None:
        known = sorted(_experiments(studies, uri).items())
        links = [(f"studies of experiment {title}", studies_page(address, number)) for number, title in known]
        return links or [("everything", address)]
    pages = known_pages(studies / name)
    if pages is None:
        send = command_line("ensdistill-tune", "sync", name, studies=studies)
        raise DataError(f"{studies / name}: MLflow has received no events of this study; `{send}` sends them")
    return [(f"compare {name}", pages.comparison(address)), (f"study {name}", pages.study(address))]


def _experiments(studies: Path, uri: str) -> dict[str, str]:
    """Returns the experiments in this store that contain studies from a folder: names, keyed by experiment id."""
    found = {}
    for file in studies.glob("*/tracking.json"):
        with contextlib.suppress(DataError):
            tracking = _summary(file.parent)["study"]["tracking"]
            pages = known_pages(file.parent)
            if pages and (tracking["uri"] or default_uri(studies)) == uri:
                found[pages.experiment] = str(tracking["experiment"])
    return found


def _summary(home: Path) -> dict[str, Any]:
    return StudyDirectory(home).read_summary()


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--port {port}: cannot be used ({error}). Choose another port.") from error
