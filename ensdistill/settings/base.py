"""Base class of settings, which are frozen and strictly typed; `setting` defines a field with a description."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base class of all settings; instances are frozen, and reject unknown keys, type conversions, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


FILE = "path"  # `format` of settings that name a file or folder, also in the JSON schema


def setting(default: Any, sentence: str, *, file: bool = False, **limits: Any) -> Any:
    """Returns a field for a settings class.

    The help, the schema and the documentation are generated from the field, so each setting is described only here.

    Args:
        default: Default value; `...` for a required setting.
        sentence: Description of the setting.
        file: Whether the setting names a file or folder; see `ensdistill.settings.paths`.
        limits: Further arguments of pydantic's `Field`, for example the bounds `ge`, `gt`, `le` and `lt`.
    """
    extra: dict[str, Any] = {"json_schema_extra": {"format": FILE}} if file else {}
    return Field(default, description=sentence, **limits, **extra)
