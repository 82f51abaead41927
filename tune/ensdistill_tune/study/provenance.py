"""Provenance of a study: versions of the packages, and the commit of the source tree."""

import subprocess
from importlib.metadata import version
from pathlib import Path


def versions() -> dict[str, str]:
    """Returns the versions of the packages that affect the results."""
    names = ("ensdistill", "torch", "ray", "optuna", "mlflow", "numpy", "scikit-learn")
    return {name: version(name) for name in names}


def git_commit() -> str | None:
    """Returns the commit of the source tree, followed by `-dirty` if files have changed; None outside a source tree."""
    root = Path(__file__).parents[3]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
