"""Lists decoded images, trained teachers and studies with their sizes, and removes selected items."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from ensdistill.data.stored_sets import describe, is_used, remove_store, size_on_disk, stored_sets
from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.locks import is_locked
from ensdistill.runtime.text import counted, listed
from ensdistill_tune.records.study_directory import StudyDirectory

DATASETS, TEACHERS, STUDIES = "datasets", "teachers", "studies"


@dataclass(frozen=True)
class StoredItem:
    """A decoded data set, a trained teacher, or a study.

    Attributes:
        name: `datasets/<hash>`, `teachers/<hash>` or `studies/<name>`.
        folder: Folder of the item.
        size: Size on disk in bytes.
        used: Time of the last use, in seconds since 1970: the modification time of the folder or, for a study, of its
            event log.
        in_use: Whether a process is using the item.
        content: Description of the content.
    """

    name: str
    folder: Path
    size: int
    used: float
    in_use: bool
    content: str


def stored_items(studies: Path, datasets: Path) -> list[StoredItem]:
    """Returns all decoded data sets, trained teachers and studies.

    A teacher is in use while it is being trained, and while any study in the folder is running.

    Args:
        studies: The folder that contains all studies.
        datasets: The folder of decoded images.
    """
    items = [_item(DATASETS, folder, is_used(folder), describe(folder)) for folder in stored_sets(datasets)]
    running, teachers = _running(studies), studies / TEACHERS
    trained = sorted(folder for folder in teachers.iterdir() if folder.is_dir()) if teachers.is_dir() else []
    items += [_item(TEACHERS, one, running or is_locked(Path(f"{one}.lock")), "a trained network") for one in trained]
    return items + [_study(file.parent) for file in sorted(studies.glob("*/study.json"))]


def select(items: Sequence[StoredItem], names: Sequence[str]) -> list[StoredItem]:
    """Returns the items with these names, without duplicates.

    Args:
        items: All items.
        names: Names of items; `datasets` or `teachers` selects all items of that kind. Studies must be named
            individually, because they cannot be recreated.

    Raises:
        ConfigError: One of the names matches no item.
    """
    known = {DATASETS, TEACHERS, *(item.name for item in items)}
    if unknown := [name for name in names if name.rstrip("/") not in known]:
        raise ConfigError(f"clean: no entry {listed(unknown)}; `ensdistill-tune clean` lists all entries")
    chosen = {name.rstrip("/") for name in names}
    return [item for item in items if item.name in chosen or item.name.partition("/")[0] in chosen]  # never STUDIES


def remove(item: StoredItem) -> None:
    """Removes an item.

    Raises:
        DataError: A process is using the item, or the item cannot be removed.
    """
    if item.name.startswith(DATASETS):
        remove_store(item.folder)
        return
    is_study = item.name.startswith(STUDIES)
    lock = StudyDirectory(item.folder).held() if is_study else FileLock(f"{item.folder}.lock", timeout=0)
    try:
        with lock:
            shutil.rmtree(item.folder)
    except Timeout:
        raise DataError(f"{item.folder} is in use by another process; wait until that process exits") from None
    except OSError as error:
        raise DataError(f"{item.folder}: cannot be removed ({error.strerror}); check its permissions") from error


def _item(kind: str, folder: Path, in_use: bool, content: str) -> StoredItem:
    return StoredItem(f"{kind}/{folder.name}", folder, size_on_disk(folder), folder.stat().st_mtime, in_use, content)


def _study(folder: Path) -> StoredItem:
    """Returns the item for a study. A study with a damaged study.json is also listed, so that it can be removed."""
    try:
        summary = StudyDirectory(folder).read_summary()
        state, trials = summary["state"], sum(summary.get("counts", {}).values())
        content = f"{state} study, {counted(trials, 'trial')} of {summary['total']}"
    except (DataError, KeyError):
        state, content = "unknown", "a damaged study"
    item = _item(STUDIES, folder, StudyDirectory(folder).is_held, content)
    log = StudyDirectory(folder).journal
    return replace(item, used=log.stat().st_mtime) if log.exists() else item


def _running(studies: Path) -> bool:
    """Returns whether a process is currently running a study in the folder."""
    return any(StudyDirectory(file.parent).is_held for file in studies.glob("*/study.json"))
