"""Facts about one machine of a cluster: its package versions, and whether it can use the folder of a study.

Ray sends the code of this module to the machines, because the package may not be installed there. The module therefore
imports only the standard library.
"""

import hashlib
import importlib.metadata
import importlib.util
import platform
import time
from pathlib import Path

PATIENCE_SECONDS = 5.0  # maximum time to wait until a file written by another machine becomes visible
NOT_INSTALLED = "not installed"


def probe(folder: str, token: str, answer: str) -> dict[str, str]:
    """Returns facts about the machine on which this function runs.

    Args:
        folder: Folder of the study.
        token: Name of a file in this folder, written by the machine that runs the study.
        answer: Name of the file that this function writes to the folder.

    Returns:
        Versions, keyed by name. The additional key `folder` contains the reason why the folder cannot be used, or an
        empty string if it can be used.
    """
    return versions() | {"folder": _folder_problem(Path(folder), token, answer)}


def versions() -> dict[str, str]:
    """Returns the software versions on this machine that must be the same on all machines of a study.

    Ray itself compares the versions of Ray and Python. The version of `ensdistill` includes a hash of the source files,
    because different commits can have the same version number.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, "torch": _version("torch").partition("+")[0], "ensdistill": _code_version()}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def _code_version() -> str:
    digest, number = hashlib.sha256(), ""
    for package in ("ensdistill", "ensdistill_tune"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None or not spec.submodule_search_locations:  # None for a folder without code
            return NOT_INSTALLED
        root = Path(spec.submodule_search_locations[0])
        for file in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".yaml")):
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
            if file == root / "version.py":
                number = file.read_text().rpartition("= ")[2].strip(' "\n')
    return f"{number} (source {digest.hexdigest()[:12]})"


def _folder_problem(folder: Path, token: str, answer: str) -> str:
    end = time.monotonic() + PATIENCE_SECONDS
    while not (folder / token).exists():
        if time.monotonic() >= end:
            return "is a different folder there" if folder.is_dir() else "does not exist there"
        time.sleep(0.1)
    try:
        (folder / answer).touch()
    except OSError as error:
        return f"cannot be written there ({error.strerror})"
    return ""
