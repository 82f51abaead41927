"""Real MLflow and PostgreSQL servers for the tests, which can be started, stopped, killed and frozen."""

import http.client
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

INSTALL = "PostgreSQL is not installed (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql)"


class MlflowServer:
    """`mlflow server` on this machine with one store, at the same `uri` after every restart.

        with MlflowServer("sqlite:////tmp/here/mlflow.db") as server:
            MlflowClient(server.uri)

    A start takes 3.5 s, and a new database another 1.5 s, because MLflow imports itself twice: to check the database
    and to serve it. Job execution, which is disabled here, would use 8 processes and 2 GB.
    """

    def __init__(self, store_uri: str, port: int | None = None) -> None:
        self.store_uri, self.port = store_uri, port or free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = TemporaryDirectory(prefix="mlflow-server-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits for a response; otherwise, raises RuntimeError with its log."""
        if listens(self.port):
            raise RuntimeError(f"port {self.port} is taken by another process")
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store_uri, "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        folder = Path(self._folder.name)
        with (folder / "log").open("wb") as log:
            self._process = process = subprocess.Popen(
                command, cwd=folder, env=_environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            wait_until(lambda: process.poll() is not None or self._answers(), "mlflow server answers", seconds=90)
            if process.poll() is not None:
                raise RuntimeError("mlflow server ended at once")
        except RuntimeError as error:
            self.kill()
            raise RuntimeError(f"{error}:\n{(folder / 'log').read_text()[-4000:]}") from None

    def stop(self) -> None:
        """Stops the server as Ctrl-C does, within a second, and waits until its port is closed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the server as a power failure does, and waits until its port is closed."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Freezes the server: it accepts connections and never responds."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Unfreezes the server: it responds again, after the requests received in the meantime."""
        self._signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Whether the server is running; a frozen server is running."""
        return self._process is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._signal(number)
            self.thaw()  # a frozen process receives only SIGKILL
            self._process.wait(30)
            self._process = None
            wait_until(lambda: not listens(self.port), f"port {self.port} is closed")

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)  # the command and the server that it started


class Postgres:
    """A PostgreSQL cluster in a temporary folder, reached through a socket that other users cannot open.

    `uri` is an empty database. A new cluster takes 0.6 s, a start 0.1 s. If PostgreSQL is not installed,
    FileNotFoundError states the package to install.
    """

    def __init__(self) -> None:
        self._programs = _postgres_programs()
        # in /tmp, because the path of a socket has at most 107 bytes and the folder of pytest can be long
        self._folder = TemporaryDirectory(prefix="postgres-", dir="/tmp")
        self.uri = f"postgresql://postgres@/postgres?host={self._folder.name}"
        if _user() is not None:
            shutil.chown(self._folder.name, _user())
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")

    def start(self) -> None:
        """Starts the server and waits until it accepts connections; data committed before a kill are restored."""
        options = f"-c listen_addresses='' -c fsync=off -k {self._folder.name}"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder.name}/log", f"--options={options}")

    def stop(self) -> None:
        """Shuts the server down in an orderly way; clients are disconnected."""
        self._run("pg_ctl", "stop", "--wait", "--mode=fast")

    def kill(self) -> None:
        """Kills the server as a power failure does: nothing is finished or written, and the next start recovers."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    @property
    def running(self) -> bool:
        return Path(self._folder.name, "data", "postmaster.pid").exists()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.running:
            self.kill()
        self._folder.cleanup()

    def _run(self, program: str, *words: str) -> None:
        command = [self._programs / program, f"--pgdata={self._folder.name}/data", *words]
        done = subprocess.run(
            command, cwd=self._folder.name, user=_user(), capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} {words[0]}: {done.stdout}{done.stderr}")


def wait_until(true: Callable[[], bool], what: str, seconds: float = 30, every: float = 0.05) -> None:
    """Polls a condition; raises RuntimeError after the given number of seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


def free_port() -> int:
    """Returns a free port outside the range of outgoing connections, so that it stays free while a server is down."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _environment() -> dict[str, str]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}  # read by MLflow
    return kept | quiet


def _postgres_programs() -> Path:
    """Returns the folder of initdb and pg_ctl, newest version first; Debian does not add it to the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    places = [*map(str, reversed(folders)), os.environ.get("PATH", os.defpath)]
    found = shutil.which("initdb", path=os.pathsep.join(places))
    if found is None:
        raise FileNotFoundError(INSTALL)
    return Path(found).parent


def _user() -> str | None:
    """Returns the user that runs PostgreSQL, which refuses to run as root; None for the current user."""
    if os.geteuid() != 0:
        return None
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
