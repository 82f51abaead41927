"""Schedule of settings that change during the training of a student.

The schedule is itself a setting. A student that continued from another trial's checkpoint with new values can therefore
be retrained from the first epoch with bit-for-bit equal results.
"""

from collections.abc import Iterator
from typing import Any

from ensdistill.errors import ConfigIssue
from ensdistill.settings.base import Settings, setting

_SECTIONS = ("perturbation", "loss")


def can_change(name: str) -> bool:
    """Returns whether a setting can change during training, which requires that only the training step reads it.

    Args:
        name: Dotted name of the setting, such as `loss.alpha`.
    """
    section, _, rest = name.partition(".")
    return name == "training.optimizer.lr" or (section in _SECTIONS and rest not in ("", "kind"))


class ScheduledChange(Settings):
    """A change of settings during training, as in population-based training (Jaderberg et al. 2017, section 3)."""

    after_epoch: int = setting(..., "Last epoch before the change.", ge=1)
    set: dict[str, Any] = setting(
        ..., "New values, keyed by dotted name; each applies until it changes again or training ends.", min_length=1
    )

    def issues(self, last: int, epochs: int) -> Iterator[ConfigIssue]:
        """Yields issues about the epoch and the names; the values are validated elsewhere.

        Args:
            last: `after_epoch` of the previous change; 0 for the first change.
            epochs: Total number of training epochs.
        """
        if not last < self.after_epoch < epochs:
            rule = f"must be above {last} and below {epochs} (training.epochs), not {{value}}"
            yield ConfigIssue(("after_epoch",), rule, self.after_epoch)
        rule = (
            "cannot change during training; only training.optimizer.lr and the settings of perturbation and loss "
            "(except kind) can"
        )
        yield from (ConfigIssue(("set", name), rule) for name in self.set if not can_change(name))
