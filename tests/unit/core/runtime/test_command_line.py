"""Printed commands can be pasted into a shell, which parses them to the original arguments."""

import subprocess

import pytest

from ensdistill.runtime.command_line import command_line

ODD = [
    "plain",
    "my [old] studies",
    "it's",
    'say "x"',
    "$HOME",
    "a;b",
    "a\tb",
    "a\\b",
    "ü ö",
    "*",
    "`ls`",
    "-x",
    "a\nb",
    "!",
]


def pasted(command: str) -> list[str]:
    """Returns the arguments that a program receives from a command pasted into a shell."""
    script = f'show() {{ printf "%s\\0" "$@"; }}; {command.replace("ensdistill-tune", "show", 1)}'
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    return out.decode(errors="surrogateescape").split("\0")[:-1]


def test_arguments_pasted_into_a_shell_reach_the_program_unchanged() -> None:
    names = [f"{odd}/x" for odd in ODD]
    expected = ["resume", *(f"./{name}" if name.startswith("-") else name for name in names)]
    assert pasted(command_line("ensdistill-tune", "resume", *names)) == expected


@pytest.mark.parametrize("studies", ODD)
def test_the_studies_folder_is_passed_as_one_argument(studies: str) -> None:
    words = pasted(command_line("ensdistill-tune", "resume", "a", studies=studies))
    assert words[:2] == ["resume", "a"]
    assert words[2:] in (["--studies-dir", studies], [f"--studies-dir={studies}"])
    assert studies.startswith("-") == (len(words) == 3)  # otherwise, argparse would parse it as an option


def test_a_name_that_is_not_utf_8_reaches_the_program_unchanged() -> None:
    assert pasted(command_line("ensdistill-tune", "x", "a\udcff'")) == ["x", "a\udcff'"]


def test_the_studies_folder_option_is_omitted_for_the_default_folder() -> None:
    options = [("--set", "a=1"), ("--set", "b=2")]
    assert (
        command_line("ensdistill-tune", "resume", "a", options=options)
        == "ensdistill-tune resume a --set a=1 --set b=2"
    )
