"""Settings that change while a student is trained, and which of them can.

Because such a change is a setting like any other, a student that went on from another's checkpoint with other values
can be trained again from its first epoch, to the very same numbers.
"""

from collections.abc import Iterator
from typing import Any

from ensdistill.errors import ConfigIssue
from ensdistill.settings.base import Settings, setting

_SECTIONS = ("perturbation", "loss")


def can_change(name: str) -> bool:
    """Whether the setting of this dotted name only flows into each step: nothing that is built once depends on it."""
    section, _, rest = name.partition(".")
    return name == "training.optimizer.lr" or (section in _SECTIONS and rest not in ("", "kind"))


class ScheduledChange(Settings):
    """One step of a schedule of settings, such as population based training finds. Jaderberg et al. 2017, section 3."""

    after_epoch: int = setting(..., "The last epoch before the change.", ge=1)
    set: dict[str, Any] = setting(
        ..., "New values by dotted names, which hold to the end or to their next change.", min_length=1
    )

    def issues(self, last: int, epochs: int) -> Iterator[ConfigIssue]:
        """What is wrong with it whatever its values, after a change after epoch `last` of so many epochs."""
        if not last < self.after_epoch < epochs:
            rule = f"must be above {last} and below the {epochs} of training.epochs, not {{value}}"
            yield ConfigIssue(("after_epoch",), rule, self.after_epoch)
        rule = (
            "cannot change on the way; only training.optimizer.lr and each setting of perturbation and loss but "
            "kind can"
        )
        yield from (ConfigIssue(("set", name), rule) for name in self.set if not can_change(name))
