"""Optuna studies, created without the message that Optuna logs for each new study."""

from collections.abc import Sequence
from typing import Any, Literal

import optuna

Direction = Literal["minimize", "maximize"]


def directions_of(modes: Sequence[str]) -> list[Direction]:
    """Returns the optimization directions that correspond to these modes (`min` or `max`)."""
    return ["maximize" if mode == "max" else "minimize" for mode in modes]


def silent_study(directions: Sequence[Direction] = ("minimize",), **more: Any) -> optuna.Study:
    """Returns a new Optuna study. Optuna's verbosity is reduced while the study is created.

    Args:
        directions: Direction of each objective.
        more: Other arguments of `optuna.create_study`.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=directions, **more)
    finally:
        optuna.logging.set_verbosity(before)
