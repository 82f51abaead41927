"""Real servers for the tests, started, stopped, killed and frozen at will: MLflow over HTTP, and PostgreSQL."""

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
    """`mlflow server` on this machine, of one store, at the same `uri` after every restart.

        with MlflowServer("sqlite:////tmp/here/mlflow.db") as server:
            MlflowClient(server.uri)

    A start takes 3.5 s, a new database 1.5 s more: MLflow imports itself twice, once to look at the database, once to
    serve it. Job execution, off here, would cost 8 processes and 2 GB.
    """

    def __init__(self, store_uri: str, port: int | None = None) -> None:
        self.store_uri, self.port = store_uri, port or free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = TemporaryDirectory(prefix="mlflow-server-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError, with its log, if it never does."""
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
        """Ends it as Ctrl-C would, within a second; returns when its port is closed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a power cut would; returns when its port is closed."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """From now on it accepts connections and never answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It answers again, after what it was asked in the meantime."""
        self._signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Frozen is running too."""
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
            self.thaw()  # a frozen process hears nothing but SIGKILL
            self._process.wait(30)
            self._process = None
            wait_until(lambda: not listens(self.port), f"port {self.port} is closed")

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)  # the command and the server that it started


class Postgres:
    """A PostgreSQL cluster in a folder of its own, reached through a socket there that nobody else can open.

    `uri` is one empty database. A new cluster takes 0.6 s, a start 0.1 s. Raises FileNotFoundError, with what to
    install, where there is no PostgreSQL.
    """

    def __init__(self) -> None:
        self._programs = _postgres_programs()
        # /tmp, however long pytest's own folder is: the path of a socket has at most 107 bytes
        self._folder = TemporaryDirectory(prefix="postgres-", dir="/tmp")
        self.uri = f"postgresql://postgres@/postgres?host={self._folder.name}"
        if _user() is not None:
            shutil.chown(self._folder.name, _user())
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")

    def start(self) -> None:
        """Returns when it takes connections, what was committed before a kill restored."""
        options = f"-c listen_addresses='' -c fsync=off -k {self._folder.name}"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder.name}/log", f"--options={options}")

    def stop(self) -> None:
        """Ends it in order; clients are cut off."""
        self._run("pg_ctl", "stop", "--wait", "--mode=fast")

    def kill(self) -> None:
        """Ends it as a power cut would: nothing is finished, nothing written, the next start recovers."""
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
    """Looks every so many seconds. Raises RuntimeError when the seconds are over."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


def free_port() -> int:
    """A port that nobody uses, and that no outgoing connection is given while a server is down."""
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
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}  # MLflow reads that
    return kept | quiet


def _postgres_programs() -> Path:
    """The folder of initdb and pg_ctl, which Debian keeps off the path; the newest version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    places = [*map(str, reversed(folders)), os.environ.get("PATH", os.defpath)]
    found = shutil.which("initdb", path=os.pathsep.join(places))
    if found is None:
        raise FileNotFoundError(INSTALL)
    return Path(found).parent


def _user() -> str | None:
    """Who runs PostgreSQL, which refuses to be run by root; None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
