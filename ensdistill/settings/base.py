"""What every piece is made of: a frozen, strictly typed settings class whose fields carry their own help text."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, no silent conversion, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


FILE = "path"  # the format of settings that name a file, in the JSON schema too


def setting(default: Any, sentence: str, *, file: bool = False, **limits: Any) -> Any:
    """A field with its sentence, default and range (pydantic's `ge`, `gt`, `le`, `lt`), written once, here.

    Args:
        default: The default; `...` if it must be given.
        sentence: What the help says of it.
        file: Whether it names a file or folder: see `ensdistill.settings.paths`.
        limits: Arguments of pydantic's `Field`.
    """
    extra: dict[str, Any] = {"json_schema_extra": {"format": FILE}} if file else {}
    return Field(default, description=sentence, **limits, **extra)
