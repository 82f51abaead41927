"""Repairs the default MLflow store after the studies folder was moved, renamed or copied.

MLflow stores the absolute path of every run's artifacts and has no function that changes it. With the old paths, MLflow
would write into the old folder, or create it again. The paths are therefore rewritten in the SQLite file next to the
artifacts.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

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
