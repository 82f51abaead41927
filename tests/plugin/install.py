"""Installs distributions for a test in the layout of pip, without pip."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ensdistill.settings import pieces, plugins

EXAMPLE = Path(__file__).parent / "ensdistill_example"
CACHES = (plugins.group_of, plugins.distribution_of, pieces.kind_of, pieces.piece_code)


def distribution(
    folder: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str],
    version: str = "1.2.3",
) -> None:
    """Writes modules and metadata of a distribution.

    Args:
        folder: Installation folder.
        name: Distribution name.
        entry_points: Values by group (without `ensdistill.`) and name.
        modules: Source code of top-level modules, by name.
        version: Distribution version.
    """
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = [
        "\n".join([f"[ensdistill.{group}]", *(f"{entry} = {value}" for entry, value in entries.items())])
        for group, entries in entry_points.items()
    ]
    (about / "entry_points.txt").write_text("\n".join(groups))
    (about / "RECORD").write_text("".join(f"{module}.py,,\n" for module in modules))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Makes the distributions in a folder importable inside the block; removes their modules afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    _forget()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
        _forget()


def _forget() -> None:
    """Clears the caches of installed plugins."""
    for cached in CACHES:
        cached.cache_clear()
