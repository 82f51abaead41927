"""What every piece is made of: a frozen, strictly typed settings class whose fields carry their own help text."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, no silent conversion, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def setting(default: Any, sentence: str, **limits: Any) -> Any:
    """A field with its sentence, default and range (pydantic's `ge`, `gt`, `le`, `lt`), written once, here."""
    return Field(default, description=sentence, **limits)
