"""Progress within the current epoch of a trial: a small file in the folder of the trial, for display only.

The event log contains complete epochs only, and no decision depends on the progress file. The file is written without
waiting for the disk. A missing or damaged file, or a file from another epoch, is ignored.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import TrialRecord

FILE = "progress.json"


@dataclass(frozen=True)
class TrialProgress:
    """Progress within an epoch.

    Attributes:
        epoch: Number of the epoch; 1 is the first.
        share: Completed fraction of the steps of the epoch, in (0, 1].
        loss: Mean training loss so far; None if it is not finite.
        images_per_second: Number of training images per second.
    """

    epoch: int
    share: float
    loss: float | None
    images_per_second: float


def write_progress(folder: Path, progress: TrialProgress) -> None:
    """Replaces the progress file of a trial. File system errors are ignored, so that training continues.

    Args:
        folder: The folder of the trial.
        progress: The progress.
    """
    loss = progress.loss if progress.loss is not None and math.isfinite(progress.loss) else None
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{FILE}"
        temporary.write_text(json.dumps(asdict(progress) | {"loss": loss}))
        os.replace(temporary, folder / FILE)


def clear_progress(folder: Path) -> None:
    """Removes the progress file of a trial; called when an epoch has ended or is repeated.

    Args:
        folder: The folder of the trial.
    """
    with contextlib.suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)


def read_progress(folder: StudyDirectory, trials: Iterable[TrialRecord]) -> dict[int, TrialProgress]:
    """Returns the progress of each running trial within the epoch after its last report, keyed by trial number.

    Args:
        folder: The folder of the study.
        trials: Records of the trials of the study.
    """
    found = {trial.number: _read(folder.trial(trial.number) / FILE) for trial in trials if trial.state == "running"}
    last = {trial.number: trial.last.get("epoch", 0) for trial in trials}
    return {number: known for number, known in found.items() if known and known.epoch > last[number]}


def _read(file: Path) -> TrialProgress | None:
    try:
        return TrialProgress(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
