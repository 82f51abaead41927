"""What the processes below this one use, read off Linux's /proc: CPU seconds and peak memory, by what they are."""

import os
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
KINDS = {  # what stands in the command line of a process: what it is
    "ImplicitFunc": "worker",
    "run_in_worker": "worker",
    "ray::": "worker",
    "raylet/raylet": "Ray's own",
    "gcs_server": "Ray's own",
    "site-packages/ray/": "Ray's own",
}


@dataclass
class Use:
    """Of all processes of a kind."""

    cpu_seconds: float = 0.0
    peak_mib: float = 0.0  # of the largest process


class Watch:
    """Inside the block a process and all below it are looked at, several times a second; `used` says who used what."""

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
        """By `driver` (the root), `worker` and `Ray's own`."""
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
                continue  # it has just ended
        below = [self._root]
        while below:
            process = below.pop()
            below += children[process]
            try:
                command = Path(f"/proc/{process}/cmdline").read_text()
            except OSError:
                continue
            if process not in seconds or not command:
                continue  # it has just ended
            kind = next((kind for words, kind in KINDS.items() if words in command), "driver")
            self._seen[process] = (kind, Use(seconds[process], peak_mib(process)))


def peak_mib(process: int | str = "self") -> float:
    """The most memory that a process has held so far."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
