"""The command `fsck` checks an event log and recovers intact records. It starts without importing torch."""

import argparse
import json
from pathlib import Path

from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.text import counted
from ensdistill_tune.records.log_recovery import LogExamination, examine, in_words, recover
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.study.claim import resume_command


def fsck(options: argparse.Namespace) -> int:
    """Prints the state of an event log, or recovers it; returns 1 if the log is damaged or incomplete."""
    folder = StudyDirectory(Path(options.studies_dir) / options.study)
    folder.read_summary()  # raises an error if the folder contains no study
    if options.to is None:
        found = examine(folder.journal)
        print(json.dumps(_row(found)) if options.json else "\n".join(_sentences(found, options)))
        return 0 if found.is_sound else 1
    copy = recover(folder, options.to)
    again = resume_command(folder.path.parent, folder.path.name)
    words = f"{folder.journal}: ends with record {options.to}; copy of the previous log: {copy}\nto continue: `{again}`"
    row = {"file": str(folder.journal), "last": options.to, "copy": str(copy)}
    print(json.dumps(row) if options.json else words)
    return 0


def _row(found: LogExamination) -> dict[str, object]:
    log = found.log
    damage = {"line": log.end.records + 1, "byte": log.end.size, "lines": log.rest} if log.damaged else None
    return {
        "file": str(found.path),
        "format": found.format,
        "product": found.product,
        "records": log.end.records,
        "last": found.last,
        "incomplete_bytes": log.incomplete,
        "damage": damage,
        "readable_after_damage": [event.model_dump(mode="json") for event in found.lost],
    }


def _sentences(found: LogExamination, options: argparse.Namespace) -> list[str]:
    log, last = found.log, found.events[-1].event.replace("_", " ") if found.events else "the header"
    lines = [
        f"{found.path}: format {found.format}, created by version {found.product}",
        f"intact:     records 0 to {found.last} ({log.end.size} bytes); last record: {last}",
    ]
    if log.incomplete:
        lines.append(f"incomplete: {log.incomplete} more bytes, left by a crash; the next session removes them")
    if log.damaged:
        to = [("--to", str(found.last))]
        fix = command_line("ensdistill-tune", "fsck", options.study, options=to, studies=options.studies_dir)
        rest = counted(log.rest, "line")
        lines += [
            f"damaged:    line {log.end.records + 1}, from byte {log.end.size}; the content of this and "
            f"all later lines ({rest}) is uncertain",
            f"readable:   {in_words(found.lost) or 'no event'}",
            f"to recover the intact records and keep a copy of the log: `{fix}`",
        ]
    return lines
