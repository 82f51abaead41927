"""Every code block of a document is parsed or run by the code it documents."""

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

import ensdistill.cli.main
import ensdistill_tune.cli.main
from ensdistill.config import Config, load_config, presets
from ensdistill.methods.perturbations import directions
from ensdistill.runtime.randomness import RandomStreams
from ensdistill.settings.base import Settings
from ensdistill.settings.validation import SettingDoc, settings_table
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import StudyConfig
from tests.docs.documents import DOCUMENTS, README, ROOT, Document, page

PARSERS = {"ensdistill": ensdistill.cli.main._parser, "ensdistill-tune": ensdistill_tune.cli.main._parser}
A_STUDY = ROOT / "search_spaces" / "digits.yaml"
COMMAND = re.compile(r"(?<![/\w.-])(ensdistill(?:-tune)? [a-z-][^`\"|&\n;)]*)")


def commands(text: str) -> list[list[str]]:
    """Returns all commands in a script, at any position in a line."""
    joined = text.replace("\\\n", " ").replace(".venv/bin/", "")
    found = [shlex.split(one, comments=True) for one in COMMAND.findall(joined)]
    return [words for words in found if words[1] not in ("import",)]


COMMANDS = sorted(
    {
        (str(document), shlex.join(words))
        for document in DOCUMENTS
        for block in document.blocks
        if block.language in ("bash", "yaml", "dockerfile")
        for words in commands(block.text)
    }
)
INLINE = sorted(
    {
        (str(document), code)
        for document in DOCUMENTS
        for code in document.inline_code
        if re.match(r"ensdistill(-tune)? [a-z-]", code)
    }
)


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_every_command_in_a_block_is_accepted_by_its_parser(document: str, line: str) -> None:
    program, *words = shlex.split(line)
    parser = PARSERS[program]()
    if {"--help", "--version"} & set(words):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(words)
        assert stop.value.code == 0
        return
    options = parser.parse_args(words)
    if not getattr(options, "set", None):
        return
    if options.command.endswith((":enqueue", ":compare")):
        load_config("latentbe", options.set)
    elif program == "ensdistill":
        load_config(options.config if options.config in presets() else "latentbe", options.set)
    else:
        file = ROOT / getattr(options, "file", "")
        load_study(file if file.is_file() else A_STUDY, options.set)


@pytest.mark.parametrize(("document", "code"), INLINE)
def test_every_command_mentioned_in_running_text_exists(document: str, code: str) -> None:
    program, *words = shlex.split(code)
    if len(words) == 1:  # only the name
        with pytest.raises(SystemExit) as stop:
            PARSERS[program]().parse_args([words[0], "--help"] if words[0] != "--version" else words)
        assert stop.value.code == 0
    elif "--help" not in words:
        PARSERS[program]().parse_args([word.strip("[]") for word in words])


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_make_target_exists(document: Document) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join([*document.blocks_of("bash"), *document.inline_code])
    shown = re.findall(r"^make (?:[A-Z]+=\S+ )*([a-z-]+)", text, re.MULTILINE)
    assert set(shown) <= targets


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.blocks_of("bash", None)], ids=str)
def test_every_shell_script_has_valid_syntax(document: Document) -> None:
    script = "\n".join(document.blocks_of("bash", None))
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


YAMLS = [
    (str(document), text)
    for document in DOCUMENTS
    if document.path.name != "extending.md"  # has a separate test
    for text in document.blocks_of("yaml")
]
OF_A_STUDY = set(StudyConfig.model_fields) - {"preset"}


@pytest.mark.parametrize(("document", "text"), YAMLS, ids=[f"{d}-{n}" for n, (d, _) in enumerate(YAMLS)])
def test_every_yaml_block_is_valid(document: str, text: str, tmp_path: Path) -> None:
    """Partial study files are completed with a search; the study of a warm start does not have to exist."""
    tree = yaml.safe_load(text)
    if "steps" in tree:  # a workflow of GitHub; its commands are tested like all others
        return
    file = tmp_path / "shown.yaml"
    if OF_A_STUDY & set(tree):
        missing = {"search": {"loss.temperature": {"log_uniform": [1, 10]}, "averaging.kind": {"choice": ["none"]}}}
        file.write_text(yaml.safe_dump(missing | tree))
        load_study(file)
    else:
        file.write_text(text)
        load_config(file)


PYTHONS = [
    (str(document), block.role, block.text)
    for document in DOCUMENTS
    for block in document.blocks
    if block.language == "python"
]


@pytest.mark.parametrize(("document", "role", "text"), PYTHONS, ids=[f"{d}-{n}" for n, (d, *_) in enumerate(PYTHONS)])
def test_every_python_block_compiles(document: str, role: str, text: str) -> None:
    compile(text, document, "exec")


def run(document: Document, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs all blocks of a document in order, as one program."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    for text in document.blocks_of("python"):
        exec(compile(text, str(document), "exec"), names)  # noqa: S102 - our own documents
    return names


RUNNING = [d for d in DOCUMENTS if d.blocks_of("python") and d.path.name != "extending.md"]  # has a separate test


@pytest.mark.slow
@pytest.mark.parametrize("document", RUNNING, ids=str)
def test_the_python_blocks_of_a_document_run(
    document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = run(document, tmp_path, monkeypatch)
    assert document != README or callable(names["student"])


def new_piece(role: str, module: ModuleType) -> Any:
    """Returns the class that a block of `contributing/add-a-piece` adds to a module."""
    (text,) = page("contributing/add-a-piece").blocks_of("python", role)
    before = set(vars(module))
    with patch.dict(sys.modules, {module.__name__: module}):
        exec("from __future__ import annotations\n" + text, vars(module))  # noqa: S102 - our own documents
    new = [value for name, value in vars(module).items() if name not in before and isinstance(value, type)]
    (piece,) = [one for one in new if one.__module__ == module.__name__ and issubclass(one, Settings)]
    piece.model_rebuild(_types_namespace=vars(module))
    return piece


def module_with(names: Mapping[str, Any]) -> ModuleType:
    module = ModuleType("shown")
    vars(module).update({name: value for name, value in names.items() if name != "__name__"})
    return module


def test_the_example_perturbation_moves_images_by_its_step_size() -> None:
    piece = new_piece("perturbation", module_with(vars(directions)))
    x = torch.full((2, 1, 4, 4), 0.5)
    moved = piece(step_size=0.01)(x, None, None, RandomStreams.of(0, "docs", 1, torch.device("cpu"))) - x
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((2,), 0.04))


def test_the_example_loss_is_the_brier_score_relative_to_the_teacher_probabilities() -> None:
    piece = new_piece("loss", module_with({}))
    student, teachers = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[200.0, 0.0]]])
    loss = piece(temperature=1.0, alpha=1.0)(student, teachers, torch.tensor([0]), student)
    assert float(loss) == pytest.approx(0.5)  # (1 - .5)^2 + (0 - .5)^2


ROWS: list[SettingDoc] = [*settings_table(Config), *settings_table(StudyConfig)]
NAMES = {row.name for row in ROWS} | {f"config.{row.name}" for row in settings_table(Config)}
SECTIONS = {name.split(".")[0] for name in NAMES if "." in name}
FILES = ("txt", "onnx", "pt2", "safetensors", "yaml", "json", "py")


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.path.name != "CHANGELOG.md"], ids=str)
def test_every_setting_mentioned_in_running_text_exists(document: Document) -> None:
    for code in document.inline_code:
        found = re.match(r"([a-z_]+(?:\.[a-z_0-9]+)+)(?:(?:=|: )(.*))?$", code)
        if not found or found[1].split(".")[0] not in SECTIONS or found[1].endswith(FILES):
            continue
        name, value = found[1], found[2]
        assert name in NAMES or any(known.startswith(f"{name}.") for known in NAMES), code
        if name.endswith(".kind") and value:
            assert value in kinds(name), code


def kinds(name: str) -> set[str]:
    """Returns the valid kinds of a setting such as `loss.kind`."""
    (limits,) = {row.limits for row in ROWS if row.name == name}
    return set(limits.split(" | "))
