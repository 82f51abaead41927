"""What the documents show is true: every block is run or read by the code it is about."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import ensdistill.cli
import tune.cli
from ensdistill.config import load_config, presets
from tune.space import load_study

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def command_lines() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith(".venv/bin/ensdistill")]
    return [shlex.split(line, comments=True) for line in lines]


def test_every_make_target_of_the_readme_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {line.split()[1] for block in blocks("bash") for line in block.splitlines() if line.startswith("make ")}
    assert shown == {"study", "test", "ui"}
    assert shown <= targets


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_every_command_of_the_readme_is_understood(words: list[str]) -> None:
    parser = {"ensdistill": ensdistill.cli, "ensdistill-tune": tune.cli}[Path(words[0]).name]._parser()
    if "--help" in words:
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(words[1:])
        assert stop.value.code == 0
        return
    options = parser.parse_args(words[1:])
    if getattr(options, "file", None):
        load_study(ROOT / options.file, options.set)
    elif getattr(options, "config", "").isalpha():
        load_config(options.config, options.set)


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.split("\n")[1])
def test_every_yaml_of_the_readme_has_no_fault(text: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(text)
    if "search" in yaml.safe_load(text):
        load_study(file)
    else:
        load_config(file)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("python")
    shown: dict[str, object] = {}
    exec(program, shown)  # noqa: S102 - our own README
    assert callable(shown["student"])


def test_every_preset_has_its_row_and_every_piece_its_mention() -> None:
    for preset in presets():
        assert f"| `{preset}` |" in README


def test_links_within_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_search_spaces_begin_with_their_command() -> None:
    for file in (ROOT / "search_spaces").glob("*.yaml"):
        assert f"ensdistill-tune launch search_spaces/{file.name}" in file.read_text().splitlines()[0]


def test_published_settings_are_those_of_the_papers() -> None:
    latentbe = load_config("latentbe")
    assert latentbe.student.model_dump() == {
        "kind": "batch_ensemble",
        "subnetworks": 4,
        "factor_gradient": "own",
        "merge": "product_of_means",
    }
    assert latentbe.perturbation.model_dump() == {
        "kind": "tdiv_sdiv",
        "step_size": pytest.approx(1 / 255),
        "label_images": "perturbed",
    }
    assert latentbe.transfer.model_dump() == {"kind": "one_to_one", "temperature": 4.0, "alpha": 1.0}
    assert latentbe.averaging.kind == "none"
    assert latentbe.training.nesterov
    assert (latentbe.training.momentum, latentbe.training.weight_decay) == (0.9, 5e-4)
