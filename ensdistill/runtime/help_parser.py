"""A parser of options whose help lists settings."""

import argparse
from collections.abc import Callable


class HelpParser(argparse.ArgumentParser):
    """A parser whose epilog is made when its help is printed, and not for every command.

    Attributes:
        epilog_of: Returns the epilog. That of settings imports all plugins.
    """

    epilog_of: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Returns the help with its epilog."""
        self.epilog = self.epilog_of() if self.epilog_of else self.epilog
        return super().format_help()
