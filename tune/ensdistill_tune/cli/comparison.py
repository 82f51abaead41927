"""The command `compare`."""

import argparse
import json

from ensdistill.runtime.progress_bar import console
from ensdistill_tune.comparison.comparing import compare as compare_settings


def compare(options: argparse.Namespace) -> int:
    """Compares settings; the exit code gives the result: 0 better, 1 not distinguishable, 3 worse."""
    screen = console(stderr=options.json)
    result = compare_settings(
        options.first,
        *options.others,
        config=options.config,
        overrides=options.set,
        metric=options.metric,
        seeds=options.seeds,
        first_seed=options.first_seed,
        studies_dir=options.studies_dir,
        device=options.device,
        workers=options.workers,
        progress=screen,
    )
    screen.print(f"\n{result}\n\nplot: {result.folder / 'differences.html'}", soft_wrap=True)
    if options.json:
        print(json.dumps(result.as_row(), allow_nan=False))
    return result.exit_code
