"""Command-line parsers whose help groups the options, lists commands by task, and shows examples and settings."""

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

Epilog = Callable[[], str]
_FORMATTER: Any = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)  # keeps line breaks in epilogs


class HelpParser(argparse.ArgumentParser):
    """A parser for one command or for a whole program.

    Attributes:
        examples: Complete command lines that the help shows.
        epilog_of: Function that returns the help text below the examples. It is called only when help is printed,
            because listing the settings imports all plugins.
        commands: Parsers of a program's commands, keyed by name.
        completions: Functions that return the possible values of an argument for shell completion, keyed by the metavar
            of the argument.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _FORMATTER} | options)
        self.examples: tuple[str, ...] = ()
        self.epilog_of: Epilog | None = None
        self.completions: dict[str, Callable[[], Iterable[str]]] = {}
        self.commands: dict[str, HelpParser] = {}
        self._groups: dict[str, Any] = {}

    @property
    def actions(self) -> list[argparse.Action]:
        """All arguments and options, including those of groups."""
        return self._actions

    def group(self, title: str) -> Any:
        """Returns the option group with this title; creates the group on first use."""
        if title not in self._groups:
            self._groups[title] = self.add_argument_group(title)
        return self._groups[title]

    def format_help(self) -> str:
        """Returns the help text, including the examples and the epilog."""
        examples = "\n".join(["examples:", *(f"  {line}" for line in self.examples)]) if self.examples else ""
        self.epilog = "\n\n".join(filter(None, [examples, self.epilog_of() if self.epilog_of else ""]))
        return super().format_help()


class Program:
    """A program with several commands; its help lists them by task.

    Attributes:
        parser: The parser of the program.
        tasks: Lists of command names, keyed by the title of the task to which the commands belong.
    """

    def __init__(self, name: str, description: str, version: str) -> None:
        self.parser = HelpParser(prog=name, usage=f"{name} COMMAND ...", description=description)
        self.parser.add_argument("--version", action="version", version=version)
        self.parser.epilog_of = self._commands_by_task
        self._commands = self.parser.add_subparsers(prog=name, required=True, metavar="COMMAND", help=argparse.SUPPRESS)
        self.tasks: dict[str, list[str]] = {}

    def add(self, task: str, name: str, sentence: str, function: str, examples: tuple[str, ...]) -> HelpParser:
        """Adds a command.

        Args:
            task: Title under which the program's help lists the command.
            name: Name of the command.
            sentence: What the command does, in one sentence.
            function: `MODULE:NAME` of the function to run; the module is imported only if the command runs.
            examples: Complete command lines.

        Returns:
            The parser of the command.
        """
        command = self._commands.add_parser(name, description=sentence)
        command.set_defaults(command=function)
        command.examples = examples
        self.parser.commands[name] = command
        self.tasks.setdefault(task, []).append(name)
        return command

    def _commands_by_task(self) -> str:
        width = max(map(len, self.parser.commands)) + 2
        blocks = [
            "\n".join([f"{task}:", *(f"  {name:{width}}{self._sentence(name)}" for name in names)])
            for task, names in self.tasks.items()
        ]
        more = f"`{self.parser.prog} COMMAND --help` lists the options of a command, with examples."
        return "\n\n".join([*blocks, more])

    def _sentence(self, name: str) -> str:
        return self.parser.commands[name].description or ""


def add_completion(program: Program) -> None:
    """Adds the command `completion` to a program."""
    name = program.parser.prog
    sub = program.add(
        "set up",
        "completion",
        "Print a script that completes commands, options and names in bash and zsh.",
        "ensdistill.runtime.completion:completion",
        (f'eval "$({name} completion bash)"', f'eval "$({name} completion zsh)"'),
    )
    sub.add_argument("shell", choices=("bash", "zsh"), help="the shell that reads the script")
    sub.set_defaults(program=program.parser)
