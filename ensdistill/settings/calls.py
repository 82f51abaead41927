"""Checks the signatures of user-defined pieces."""

import inspect
from collections.abc import Callable
from typing import Any

from ensdistill.settings.pieces import Piece


def misfit(piece: Piece, *arguments: Any) -> str | None:
    """Returns the reason why a piece cannot be called with the given arguments.

    Args:
        piece: A user-defined piece.
        arguments: Positional arguments of the piece's `__call__`.

    Returns:
        A sentence without a final period; None if the signature accepts the arguments.
    """
    call: Callable[..., Any] = piece.__call__  # type: ignore[operator]
    try:
        inspect.signature(call).bind(*arguments)
    except TypeError as error:
        own = inspect.signature(vars(type(piece)).get("__call__", call))
        base = next(one for one in type(piece).__mro__ if "piece_group" in vars(one))
        names = list(inspect.signature(base.__call__).parameters)[1:]
        return f"{piece.kind} has __call__{own}, which cannot be called with {', '.join(names)} ({error})"
    return None
