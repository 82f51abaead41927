"""The Python API reference, which documents the public names of a package with autodoc."""

import importlib
import inspect

from pydantic import BaseModel

from generated.markdown import block


def markdown(package: str) -> str:
    """Returns the documentation of the public functions and classes of a package, in the order of `__all__`."""
    module = importlib.import_module(package)
    names = [name for name in getattr(module, "__all__", []) if not name.startswith("__")]
    things = {name: getattr(module, name) for name in names}
    own = {name: thing for name, thing in things.items() if _package(thing) in ("builtins", package)}
    parts = [_part(f"{package}.{name}", thing) for name, thing in own.items()]
    return block("\n\n".join(parts), "{eval-rst}") if parts else "This package exports no public names."


def _package(thing: object) -> str:
    """Returns the package that defines a name; a re-exported name is listed only for this package."""
    return str(getattr(thing, "__module__", "builtins")).partition(".")[0]


def _part(where: str, thing: object) -> str:
    if not inspect.isclass(thing):
        return f".. autofunction:: {where}" if callable(thing) else f".. autodata:: {where}"
    if issubclass(thing, BaseModel):  # its fields are in the settings reference
        return f".. autoclass:: {where}(**settings)\n   :no-members:"
    return f".. autoclass:: {where}\n   :members:"
