"""Parts of method pages that are generated from the code of a preset or a piece."""

import re
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel

from ensdistill.config import Config, read_preset
from ensdistill.settings.validation import kind_of, pieces_of
from generated.docstrings import to_markdown
from generated.markdown import block
from generated.settings import rows_of

METHODS = Path(__file__).parents[2] / "methods"


def pieces(section: str) -> dict[str, type[BaseModel]]:
    """Returns the pieces of one component (`student`, `perturbation`, `loss`, `averaging`), keyed by kind."""
    return {kind_of(piece): piece for piece in pieces_of(Config.model_fields[section])}


def piece(name: str) -> str:
    """Returns the docstring and the settings of a piece, such as `loss.ekd`."""
    section, kind = name.split(".")
    own = pieces(section)[kind]
    rows = rows_of(Config, section, kind)
    return "\n\n".join(part for part in (to_markdown(own), rows) if part)


def other_pieces(section: str) -> str:
    """Returns a section for each piece of a component, except for pieces that already have a section on a page."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted(METHODS.glob("*.md")))
    shown = set(re.findall(rf"^```{{piece}} {section}\.(\w+)$", pages, re.MULTILINE))
    others = [kind for kind in pieces(section) if kind not in shown]
    return "\n\n".join(f"## `{kind}`\n\n{piece(f'{section}.{kind}')}" for kind in others)


def preset(name: str) -> str:
    """Returns the settings of a preset, as written in its file."""
    read_preset(name)  # raises an error if the name is unknown
    text = (files("ensdistill.presets") / f"{name}.yaml").read_text(encoding="utf-8")
    return block(re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip(), "yaml")
