"""Decision about a trial after each of its reports."""

from enum import Enum


class Decision(Enum):
    """Whether a trial continues."""

    CONTINUE = "continue"
    STOP = "stop"

    @classmethod
    def stop_if(cls, condition: bool) -> "Decision":
        """Returns STOP if the condition is met, otherwise CONTINUE."""
        return cls.STOP if condition else cls.CONTINUE
