"""Argument parser whose help lists settings."""

import argparse
from collections.abc import Callable


class HelpParser(argparse.ArgumentParser):
    """An argument parser that creates its epilog only when the help is printed.

    Attributes:
        epilog_of: Returns the epilog. The list of settings is expensive, because it imports all plugins.
    """

    epilog_of: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Returns the help with its epilog."""
        self.epilog = self.epilog_of() if self.epilog_of else self.epilog
        return super().format_help()
