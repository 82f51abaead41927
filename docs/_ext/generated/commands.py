"""The command reference, generated from the parsers of the commands."""

import argparse

import ensdistill.cli.main
import ensdistill_tune.cli.main
from generated.markdown import block, code, escaped, table

PARSERS = {
    "ensdistill": ensdistill.cli.main._parser,
    "ensdistill-tune": ensdistill_tune.cli.main._parser,
}
PAGE = "reference/commands"


def subcommands(program: str) -> dict[str, argparse.ArgumentParser]:
    """Returns the parsers of a program's commands, keyed by name."""
    parser = PARSERS[program]()
    (action,) = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return dict(action.choices)


def anchor(program: str, command: str) -> str:
    """Returns the anchor of a command's section."""
    return f"{program}-{command}"


def pages() -> dict[str, tuple[str, str]]:
    """Returns the page and the anchor of every command, keyed by the full command, such as `ensdistill-tune resume`."""
    return {
        f"{program} {command}": (PAGE, anchor(program, command))
        for program in PARSERS
        for command in subcommands(program)
    }


def markdown(program: str) -> str:
    """Returns one section for each command of a program."""
    return "\n\n".join(_section(program, name, parser) for name, parser in subcommands(program).items())


def _section(program: str, name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"({anchor(program, name)})=", f"### {code(f'{program} {name}')}", escaped(parser.description or "")]
    parts.append(block(parser.format_usage().removeprefix("usage: ").strip()))
    rows = [_row(action) for action in parser._actions if action.help != argparse.SUPPRESS]
    parts.append(table(["argument", "meaning"], rows))
    return "\n\n".join([*parts, *_examples(parser)])


def _examples(parser: argparse.ArgumentParser) -> list[str]:
    lines = getattr(parser, "examples", ())
    return [block("\n".join(lines), "bash")] if lines else []


def _row(action: argparse.Action) -> list[str]:
    value = str(action.metavar or action.dest.upper()) if action.nargs != 0 else ""
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    names = [f"{name} {value}".strip() for name in action.option_strings[-1:]] or [value]
    return [code(names[0]), escaped((action.help or "").replace("%%", "%"))]
