"""Method cards: what the code holds about a preset or a piece."""

import re
from importlib.resources import files

from pydantic import BaseModel

from ensdistill.config import Config, read_preset
from ensdistill.settings.validation import kind_of, pieces_of
from generated.docstrings import to_markdown
from generated.markdown import block
from generated.settings import rows_of


def pieces(section: str) -> dict[str, type[BaseModel]]:
    """Returns the pieces of one component (`student`, `perturbation`, `loss`, `averaging`) by kind."""
    return {kind_of(piece): piece for piece in pieces_of(Config.model_fields[section])}


def piece(name: str) -> str:
    """Returns what the code states about a piece, such as `loss.ekd`: its docstring and its settings."""
    section, kind = name.split(".")
    own = pieces(section)[kind]
    rows = rows_of(Config, section, kind)
    return "\n\n".join(part for part in (to_markdown(own), rows) if part)


def preset(name: str) -> str:
    """Returns the settings of a preset as they stand in its file."""
    read_preset(name)  # raises for an unknown name
    text = (files("ensdistill.presets") / f"{name}.yaml").read_text(encoding="utf-8")
    return block(re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip(), "yaml")
