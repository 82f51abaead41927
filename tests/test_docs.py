"""What the documents show is true: every block is run or read by the code it is about."""

import re
import shlex
import textwrap
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml

import ensdistill.cli
import tune.cli
from ensdistill import perturbations
from ensdistill.averaging import Averaging
from ensdistill.config import load_config, presets
from ensdistill.data import DataSettings
from ensdistill.faults import kind_of
from ensdistill.models import Model
from ensdistill.perturbations import Perturbation
from ensdistill.randomness import Streams
from ensdistill.students import StudentSettings
from ensdistill.transfer import Transfer
from tune.load import load_study

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
    for axis in (StudentSettings, Perturbation, Transfer, Averaging, DataSettings, Model):
        for piece in get_args(get_args(axis)[0]):
            assert f"`{kind_of(piece)}`" in README


def test_links_within_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_search_spaces_begin_with_their_command() -> None:
    for file in (ROOT / "search_spaces").glob("*.yaml"):
        assert f"ensdistill-tune launch search_spaces/{file.name}" in file.read_text().splitlines()[0]


def test_the_piece_that_the_readme_adds_is_a_perturbation() -> None:
    (program,) = re.findall(r"^   ```py\n(.*?)^   ```$", README, re.DOTALL | re.MULTILINE)
    shown = vars(perturbations).copy()
    exec(textwrap.dedent(program), shown)  # noqa: S102 - our own README
    (piece,) = [value for name, value in shown.items() if name not in vars(perturbations) and isinstance(value, type)]
    x = torch.full((2, 1, 4, 4), 0.5)
    moved = piece(step_size=0.01)(x, None, None, Streams.of(0, "docs", 1, torch.device("cpu"))) - x
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((2,), 0.04))


PUBLISHED = {  # METHODS of the papers, as their official code has them
    "latentbe": {
        "student": {"subnetworks": 4, "factors": "ones", "factor_gradient": "own", "factor_lr": 1.0}
        | {"factor_decay": "to_one", "bias": "shared", "merge": "product_of_means", "merge_at": 1.0},
        "perturbation": {"kind": "tdiv_sdiv", "step_size": pytest.approx(1 / 255), "label_images": "perturbed"},
        "transfer": {"kind": "one_to_one", "temperature": 4.0, "alpha": 1.0},
        "averaging": {"kind": "none", "refresh_batchnorm": False},
        "training": {"nesterov": True, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine"},
    },
    "diversity": {
        "student": {"subnetworks": 4, "factors": "normal", "factor_std": 0.5, "factor_gradient": "mean"}
        | {"factor_lr": 0.5, "factor_decay": "none", "bias": "own", "merge": "mean_of_probabilities"},
        "perturbation": {"kind": "conf_ods", "step_size": pytest.approx(1 / 255), "label_images": "clean"},
        "transfer": {"kind": "one_to_one", "temperature": 4.0, "alpha": 0.9},
        "averaging": {"kind": "none", "refresh_batchnorm": False},
        "training": {"nesterov": False, "schedule": "linear", "warmup_epochs": 5, "lowest": 0.01},
    },
    "aekd": {
        "student": {"kind": "single"},
        "perturbation": {"kind": "none"},
        "transfer": {"temperature": 4.0, "label_weight": 1.0, "teacher_weight": 0.9, "tolerance": 0.6},
        "training": {"nesterov": True, "schedule": "steps", "warmup_epochs": 0},
    },
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_settings_are_those_of_the_papers(preset: str) -> None:
    config = load_config(preset).model_dump()
    for axis, settings in PUBLISHED[preset].items():
        assert {name: config[axis][name] for name in settings} == settings


@pytest.mark.parametrize("preset", presets())
def test_every_preset_says_where_it_is_from(preset: str) -> None:
    heading = "".join(line for line in preset_text(preset).splitlines(True) if line.startswith("#"))
    assert preset == "labels" or re.search(r"\d{4}", heading), "a year"
    assert ("RECONSTRUCTION" in heading) == (preset in ("ekd", "unikd"))
    assert ("**reconstruction**" in preset_row(preset)) == (preset in ("ekd", "unikd"))


def preset_text(preset: str) -> str:
    return (ROOT / "ensdistill" / "presets" / f"{preset}.yaml").read_text()


def preset_row(preset: str) -> str:
    return next(line for line in README.splitlines() if line.startswith(f"| `{preset}` |"))
