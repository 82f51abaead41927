"""The command `clean`. It starts without importing torch."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from rich.table import Table

from ensdistill.data.folders import datasets_folder
from ensdistill.errors import DataError
from ensdistill.runtime.formatting import memory_size
from ensdistill.runtime.progress_bar import console
from ensdistill.runtime.text import counted
from ensdistill_tune.storage import STUDIES, StoredItem, remove, select, stored_items


def clean(options: argparse.Namespace) -> int:
    """Lists decoded data sets, teachers and studies, or removes the named ones; returns 1 if a removal failed."""
    studies = Path(options.studies_dir)
    items = stored_items(studies, datasets_folder(studies))
    chosen = select(items, options.names) if options.names else items
    removes = bool(options.names and options.remove)
    refused = _remove(chosen) if removes else []
    if options.json:
        rows = [asdict(one) | {"folder": str(one.folder), "removed": removes and one not in refused} for one in chosen]
        print(json.dumps(rows))
    else:
        _show(studies, chosen, refused, bool(options.names), removes)
    return 1 if refused else 0


def _remove(chosen: Sequence[StoredItem]) -> list[StoredItem]:
    """Removes entries; returns those that could not be removed."""
    refused = []
    for item in chosen:
        try:
            if item.in_use:
                raise DataError(f"{item.folder} is in use by another process; wait until that process exits")
            remove(item)
        except DataError as error:
            console(stderr=True).print(f"not removed: {error}", soft_wrap=True)
            refused.append(item)
    return refused


def _show(studies: Path, chosen: Sequence[StoredItem], refused: list[StoredItem], named: bool, removes: bool) -> None:
    screen = console()
    if not chosen:
        screen.print(f"{studies}: no decoded data sets, teachers or studies")
        return
    table = Table(title=f"decoded data sets, teachers and studies in {studies}", title_justify="left")
    for column in ("name", "size", "last used", "state", "content"):
        table.add_column(column, overflow="fold")
    for item in chosen:
        state = "in use" if item.in_use else "removed" if removes and item not in refused else "not in use"
        table.add_row(item.name, memory_size(item.size), _date(item.used), state, item.content)
    screen.print(table)
    free = [item for item in chosen if item not in refused and not item.in_use]
    words = counted(len(free), "entry")
    size = memory_size(sum(item.size for item in free))
    if removes:
        screen.print(f"removed: {words}, {size}")
    elif named:
        screen.print(f"would remove {words}, {size}; add --remove to remove them")
    else:
        screen.print(f"not in use: {words}, {size}; name entries and add --remove to remove them")
    screen.print("removed data sets are decoded again and removed teachers are trained again if a study requires them")
    if any(item.name.startswith(STUDIES) for item in chosen):
        screen.print("a study is removed permanently, with its students and its event log; its runs in MLflow are kept")


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
