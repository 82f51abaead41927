"""CPU seconds and peak memory of the child processes of this process, by kind, read from /proc on Linux."""

import os
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
KINDS = {  # text in the command line of a process: kind of process
    "ImplicitFunc": "worker",
    "run_in_worker": "worker",
    "ray::": "worker",
    "raylet/raylet": "Ray's own",
    "gcs_server": "Ray's own",
    "site-packages/ray/": "Ray's own",
}


@dataclass
class Use:
    """Resources used by all processes of a kind."""

    cpu_seconds: float = 0.0
    peak_mib: float = 0.0  # of the largest process


class Watch:
    """Samples a process and its descendants several times per second inside the block; `used` holds their resources."""

    def __init__(self, root: int, every: float = 0.25) -> None:
        self._root, self._every, self._over = root, every, threading.Event()
        self._seen: dict[int, tuple[str, Use]] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def used(self) -> dict[str, Use]:
        """Returns the resources of `driver` (the root), `worker` and the processes of Ray itself."""
        sums: dict[str, Use] = defaultdict(Use)
        for kind, use in list(self._seen.values()):
            sums[kind].cpu_seconds += use.cpu_seconds
            sums[kind].peak_mib = max(sums[kind].peak_mib, use.peak_mib)
        return dict(sums)

    def _work(self) -> None:
        while not self._over.wait(self._every):
            self._look()

    def _look(self) -> None:
        children = defaultdict(list)
        seconds = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                children[int(fields[1])].append(int(folder.name))
                seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS
            except (OSError, IndexError):
                continue  # the process has just ended
        below = [self._root]
        while below:
            process = below.pop()
            below += children[process]
            try:
                command = Path(f"/proc/{process}/cmdline").read_text()
            except OSError:
                continue
            if process not in seconds or not command:
                continue  # the process has just ended
            kind = next((kind for words, kind in KINDS.items() if words in command), "driver")
            self._seen[process] = (kind, Use(seconds[process], peak_mib(process)))


def peak_mib(process: int | str = "self") -> float:
    """Returns the peak memory of a process so far, in MiB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
