"""Studies of Optuna's in memory, without the line that Optuna prints about each new one."""

from collections.abc import Sequence
from typing import Literal

import optuna

Direction = Literal["minimize", "maximize"]


def silent_study(directions: Sequence[Direction] = ("minimize",)) -> optuna.Study:
    """Returns an empty study in memory. The verbosity of Optuna's messages stays what it was."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=directions)
    finally:
        optuna.logging.set_verbosity(before)
