"""Import of optional libraries."""

from importlib import import_module
from typing import Any

from ensdistill.errors import ConfigError


def need(name: str, extra: str = "export") -> Any:
    """Returns a module of an extra.

    Args:
        name: Name of the module.
        extra: Name of the extra that installs it.

    Raises:
        ConfigError: The module cannot be imported; the message states how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} cannot be imported ({error}); run `pip install 'ensdistill[{extra}]'`") from error
