"""The SQLite file of the default MLflow store: faster commits, and repair after the studies folder was moved.

MLflow stores the absolute path of every run's artifacts and has no function that changes it. After the folder was
moved, renamed or copied, MLflow would therefore write into the old folder, or create it again. To prevent this, the
paths in the SQLite file are rewritten.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
LOCAL = frozenset(("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"))  # file systems

_PATHS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def relocate(database: Path, old: str, new: str) -> None:
    """Rewrites the locations of all artifacts below a folder; if SQLite raises an error, no location is changed.

    Args:
        database: The SQLite file of the store.
        old: URI of the folder when the artifacts were written.
        new: Current URI of the folder.
    """
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        for table, names in _PATHS.items():
            known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for name in known.intersection(names):
                connection.execute(
                    f"UPDATE {table} SET {name} = ? || substr({name}, ?) WHERE {name} = ? OR substr({name}, 1, ?) = ?",  # noqa: S608 - the names are constants
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )


def enable_write_ahead_log(database: Path) -> None:
    """Switches a SQLite file to write-ahead logging, permanently; creates the file if it is missing.

    A commit then syncs the disk once instead of several times and is as durable as before. Because write-ahead logging
    requires that all processes run on the same machine, a file that is not on a local file system is left unchanged, as
    is a file that another process is using.
    """
    if file_system(database.parent) in LOCAL:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(database, timeout=1)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


def file_system(folder: Path) -> str:
    """Returns the type of the file system that contains a folder, such as `ext4` or `nfs4`; empty if it is unknown."""
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    # Spaces in paths are written as octal numbers. The last of several mounts at the same place hides the others.
    places = {
        Path(os.fsdecode(where.encode().decode("unicode_escape").encode("latin-1"))): kind
        for _, where, kind, *_ in mounts
    }
    folder = folder.resolve()
    within = [place for place in places if folder.is_relative_to(place)]
    return places[max(within, key=lambda place: len(place.parts))] if within else ""
