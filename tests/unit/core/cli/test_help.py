"""Help and completion of both programs."""

import argparse
import shlex
import subprocess
from pathlib import Path

import pytest

import ensdistill.cli.main
import ensdistill_tune.cli.main
from ensdistill.runtime.help_parser import HelpParser
from tests.commands import call

PARSERS = {"ensdistill": ensdistill.cli.main._parser, "ensdistill-tune": ensdistill_tune.cli.main._parser}
COMMANDS = [(program, name, sub) for program, parser in PARSERS.items() for name, sub in parser().commands.items()]
IDS = [f"{program} {name}" for program, name, _ in COMMANDS]


@pytest.mark.parametrize("program", PARSERS)
def test_the_help_of_a_program_lists_every_command_grouped_by_task(program: str) -> None:
    text = call(program, "--help").out
    blocks = [block for block in text.split("\n\n") if block.partition("\n")[0].endswith(":")]
    listed = [line.split()[0] for block in blocks for line in block.splitlines()[1:] if not line.startswith("  -")]
    assert listed == list(PARSERS[program]().commands)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(("program", "name", "sub"), COMMANDS, ids=IDS)
def test_the_examples_of_a_command_are_accepted_by_its_parser(program: str, name: str, sub: HelpParser) -> None:
    assert 1 <= len(sub.examples) <= 3
    for line in sub.examples:
        words = shlex.split(line.removeprefix('eval "$(').removesuffix(')"'))
        assert words[:2] == [program, name]
        PARSERS[program]().parse_args(words[1:])
        assert f"\n  {line}" in sub.format_help()


def test_an_option_has_the_same_meaning_in_every_command() -> None:
    sentences: dict[tuple[str, str], set[str]] = {}
    for program, _, sub in COMMANDS:
        for action in sub.actions:
            for option in action.option_strings:
                if option in ("--studies-dir", "--executor", "--license"):
                    sentences.setdefault((program, option), set()).add(str(action.help))
    assert {option: texts for option, texts in sentences.items() if len(texts) > 1} == {}


@pytest.mark.parametrize(("program", "name", "sub"), COMMANDS, ids=IDS)
def test_the_options_of_a_command_are_grouped_if_there_are_three_or_more_in_addition_to_help(
    program: str, name: str, sub: HelpParser
) -> None:
    loose = [a.option_strings[0] for a in sub._optionals._group_actions if not isinstance(a, argparse._HelpAction)]
    assert len(loose) <= 2, loose


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("ensdistill-tune res", ["resume"]),
        ("ensdistill-tune resume be", ["beta"]),
        ("ensdistill-tune --studies-dir other resume ", ["gamma"]),
        ("ensdistill-tune resume beta --set budget.tri", ["budget.trials="]),
        ("ensdistill-tune resume beta --set config.averaging.ki", ["config.averaging.kind="]),
        ("ensdistill-tune launch --executor ", ["ray", "inline"]),
        ("ensdistill-tune launch --executor = in", ["inline"]),
        ("ensdistill-tune launch --executor =", ["ray", "inline"]),
        ("ensdistill-tune launch --set a.b = my", []),
        ("ensdistill-tune resume --studies-dir = other g", ["gamma"]),
        ("ensdistill-tune launch my", ["my.yaml"]),
        ("ensdistill distill latent", ["latentbe"]),
        ("ensdistill export runs --formats p", ["pt2"]),
        ("ensdistill distill kd --set averaging.ki", ["averaging.kind="]),
        ("ensdistill predict my", ["my.yaml"]),
        ("ensdistill predict two", ["two words.yaml"]),
    ],
)
def test_bash_completion_suggests_commands_and_options_and_names(
    line: str, completed: list[str], tmp_path: Path
) -> None:
    for home in ("studies/alpha", "studies/beta", "other/gamma"):
        (tmp_path / home).mkdir(parents=True)
        (tmp_path / home / "study.json").touch()
    (tmp_path / "my.yaml").touch()
    (tmp_path / "two words.yaml").touch()
    program, *words = line.split(" ")
    array = " ".join(map(shlex.quote, [program, *words]))
    function = program.replace("-", "_")
    ask = f'COMP_WORDS=({array}); COMP_CWORD={len(words)}; _{function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    shell = ["bash", "-c", f"{call(program, 'completion', 'bash').out}\n{ask}"]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = [word for word in filter(None, done.stdout.split("\n")) if not word.startswith("--")]
    assert (found, done.stderr) == (completed, "")
