"""Import of optional libraries."""

from importlib import import_module
from typing import Any

from ensdistill.errors import ConfigError


def need(name: str, extra: str = "export", otherwise: str = "") -> Any:
    """Returns a module that is installed by an extra of this package.

    Args:
        name: Name of the module.
        extra: Name of the extra that installs the module.
        otherwise: An alternative fix to append to the message.

    Raises:
        ConfigError: The module cannot be imported; the message states how to install it.
    """
    try:
        return import_module(name)
    except (ImportError, RuntimeError, OSError) as error:  # a dependency can have the wrong version
        cause, fix = " ".join(str(error).split()), f"run `pip install 'ensdistill[{extra}]'`{otherwise}"
        raise ConfigError(f"{name} cannot be imported ({cause}); {fix}") from error
