"""Location of the folder that contains decoded images."""

import os
from pathlib import Path

VARIABLE = "ENSDISTILL_DATASETS"  # environment variable


def datasets_folder(studies: str | Path = "studies") -> Path:
    """Returns the folder of all stores: the value of ENSDISTILL_DATASETS if it is set, otherwise `<studies>/datasets`.

    Args:
        studies: Folder of all results.
    """
    given = os.environ.get(VARIABLE, "").strip()
    return Path(given).expanduser() if given else Path(studies) / "datasets"
