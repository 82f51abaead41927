"""Libraries that only some commands need."""

from importlib import import_module
from typing import Any

from ensdistill.errors import ConfigError


def need(name: str) -> Any:
    """The module. Raises ConfigError with the way to install it if it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} cannot be imported ({error}); pip install 'ensdistill[export]'") from error
