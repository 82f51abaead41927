"""Calls of pieces that are not built in."""

import inspect
from collections.abc import Callable
from typing import Any

from ensdistill.settings.pieces import Piece


def misfit(piece: Piece, *arguments: Any) -> str | None:
    """Returns why a piece cannot be called with some arguments, in a sentence without its end; None if it can."""
    call: Callable[..., Any] = piece.__call__  # type: ignore[operator]
    try:
        inspect.signature(call).bind(*arguments)
    except TypeError as error:
        own = inspect.signature(vars(type(piece)).get("__call__", call))
        base = next(one for one in type(piece).__mro__ if "piece_group" in vars(one))
        names = list(inspect.signature(base.__call__).parameters)[1:]
        return f"{piece.kind} has __call__{own}, which cannot be called with {', '.join(names)} ({error})"
    return None
