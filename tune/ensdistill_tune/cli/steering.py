"""The commands that send requests to a study: `enqueue` and `stop`. They start without importing torch."""

import argparse
from pathlib import Path

from ensdistill.config import parse_overrides
from ensdistill_tune import steering
from ensdistill_tune.study.claim import resume_command


def enqueue(options: argparse.Namespace) -> int:
    """Puts settings at the front of a study's queue."""
    home = Path(options.studies_dir) / options.study
    if steering.enqueue(home, parse_overrides(options.set)) == "accepted":
        print("enqueued: the next trial of the search will use these settings")
    else:
        again = resume_command(home.parent, home.name)
        print(f"request pending: it will be handled soon, or when the study is resumed with `{again}`")
    return 0


def stop(options: argparse.Namespace) -> int:
    """Stops a study, or one of its trials."""
    home = Path(options.studies_dir) / options.study
    accepted = steering.stop(home, options.trial) == "accepted"
    if not accepted:
        print("request pending: it will be handled soon")
    elif options.trial is None:
        print(f"the study is stopping; to resume: `{resume_command(home.parent, home.name)}`")
    else:
        print(f"trial {options.trial} will stop at its next report")
    return 0
