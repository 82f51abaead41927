"""Shell completion for bash and zsh, using a script that is generated from the parsers and does not start Python.

Examples:
    eval "$(ensdistill-tune completion bash)"    # in ~/.bashrc
"""

import argparse
import re
import shlex
from collections.abc import Iterator

from ensdistill.runtime.command_line import STUDIES
from ensdistill.runtime.help_parser import HelpParser

FILES = ("FILE", "DIR", "IMAGES", "MODEL", "CONFIG")  # metavars that denote files and folders
STUDY, SETTING = "STUDY", "NAME=VALUE"  # metavars that denote a study name and a setting
ZSH = "autoload -U +X compinit bashcompinit && compinit -u && bashcompinit\n"

SCRIPT = """\
{function}() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="" words="" files="" assign="" prefix="" studies={studies} at
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "${{COMP_WORDS[at]}}" in
            --studies-dir) studies="${{COMP_WORDS[at+1]}}"; [ "$studies" != = ] || studies="${{COMP_WORDS[at+2]}}" ;;
            --studies-dir=*) studies="${{COMP_WORDS[at]#*=}}" ;;
            {commands}) [ -n "$command" ] || command="${{COMP_WORDS[at]}}" ;;
        esac
    done
    # bash splits --OPTION=VALUE into three words, zsh keeps it as one
    case "$previous$current" in
        =*) previous="${{COMP_WORDS[COMP_CWORD-2]}}"; [ "${{previous#--}}" != "$previous" ] || return 0 ;;
        --*=) [ "$current" != = ] || current="" ;;
    esac
    case "$current" in
        --*=*) previous="${{current%%=*}}" prefix="${{current%%=*}}=" current="${{current#*=}}" ;;
    esac
    case "$command $previous" in
{values}
        *)
            case "$command" in
{options}
                *) words={top} ;;
            esac
            ;;
    esac
    case "$words" in
        *{study}*) words="${{words/{study}/}} $(cd "$studies" 2>/dev/null && ls -d */study.json 2>/dev/null | cut -d/ -f1)" ;;
    esac
    COMPREPLY=($(compgen -P "$prefix" -W "$words" -- "$current"))
    [ -z "$assign" ] || compopt -o nospace +o filenames 2>/dev/null
    local IFS=$'\n'
    [ -z "$files" ] || COMPREPLY+=($(compgen -P "$prefix" -f -- "$current"))
}}
complete -o filenames -F {function} {program}
"""  # noqa: E501 - one line of shell


def completion(options: argparse.Namespace) -> int:
    """Prints the completion script of a program."""
    print(script(options.program, options.shell), end="")
    return 0


def script(parser: HelpParser, shell: str) -> str:
    """Returns the completion script of a program.

    Args:
        parser: The parser of the program.
        shell: `bash` or `zsh`; zsh runs the bash script.
    """
    commands = parser.commands
    text = SCRIPT.format(
        function="_" + re.sub(r"\W", "_", parser.prog),
        program=parser.prog,
        studies=STUDIES,
        study=STUDY,
        commands="|".join(commands),
        values="\n".join(line for name, command in commands.items() for line in _values(name, command)),
        options="\n".join(f"                {name}) {_words(command)} ;;" for name, command in commands.items()),
        top=shlex.quote(" ".join([*commands, *_options(parser)])),
    )
    return (ZSH if shell == "zsh" else "") + text


def _values(name: str, command: HelpParser) -> Iterator[str]:
    """Yields a shell case for each option with a value; the case completes choices, files, study names or nothing."""
    for action in command.actions:
        if action.option_strings and action.nargs != 0:
            given = "|".join(f'"{name} {option}"' for option in action.option_strings)
            yield f"        {given}) {_value(action, command)} ;;"


def _value(action: argparse.Action, command: HelpParser) -> str:
    """Returns the shell assignments that define what may follow an option."""
    words = f"words={shlex.quote(' '.join(_completions(action, command)))}"
    rest = " files=1" if action.metavar in FILES else " assign=1" if action.metavar == SETTING else ""
    return words + rest


def _words(command: HelpParser) -> str:
    """Returns the shell assignment that defines what may follow a command: its options and argument values."""
    positional = [action for action in command.actions if not action.option_strings]
    values = [word for action in positional for word in _completions(action, command)]
    words = f"words={shlex.quote(' '.join([*values, *_options(command)]))}"
    return words + (" files=1" if any(action.metavar in FILES for action in positional) else "")


def _completions(action: argparse.Action, command: HelpParser) -> list[str]:
    """Returns the known values of an argument; the script itself looks up study names."""
    metavar = str(action.metavar)
    found = command.completions[metavar]() if metavar in command.completions else action.choices or ()
    return [STUDY] if metavar == STUDY else [f"{word}=" if metavar == SETTING else str(word) for word in found]


def _options(parser: HelpParser) -> list[str]:
    return [option for action in parser.actions for option in action.option_strings if option.startswith("--")]
