"""What the documents show is true: every block is run or read by the code it is about."""

import os
import pkgutil
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from PIL import Image

import ensdistill.cli.main
import ensdistill_tune.cli.main
from ensdistill.config import Config, flatten, load_config, presets
from ensdistill.data import load_data
from ensdistill.methods import perturbations
from ensdistill.runtime.randomness import RandomStreams
from ensdistill.settings.fields import families_of
from ensdistill_tune.search.schedulers import Scheduler
from ensdistill_tune.search.searchers import Searcher
from ensdistill_tune.study.loading import load_study
from tests.commands import call
from tests.plugin.install import distribution, importable
from tests.settings_table import in_markdown, shown
from tests.tiny import TinyStudy

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def command_lines() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith(".venv/bin/ensdistill")]
    return [shlex.split(line, comments=True) for line in lines]


def commands_elsewhere() -> list[list[str]]:
    """Commands inside scripts, tables and settings of other tools, up to what ends them there."""
    text = README.replace("\\\n", " ").replace("launch /shared/my.yaml", "launch my.yaml")
    found = re.findall(r"(?<![/\w])ensdistill(?:-tune)? [a-z][^`\"|\n]*", text)
    return [shlex.split(one, comments=True) for one in found if not one.startswith("ensdistill import")]


def test_every_make_target_of_the_readme_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {line.split()[1] for block in blocks("bash") for line in block.splitlines() if line.startswith("make ")}
    assert shown == {"study", "test", "bench", "ui"}
    assert shown <= targets


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_every_command_of_the_readme_is_understood(words: list[str]) -> None:
    parser = {"ensdistill": ensdistill.cli.main, "ensdistill-tune": ensdistill_tune.cli.main}[
        Path(words[0]).name
    ]._parser()
    if "--help" in words:
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(words[1:])
        assert stop.value.code == 0
        return
    options = parser.parse_args(words[1:])
    if getattr(options, "file", "my.yaml") != "my.yaml":
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


@pytest.mark.parametrize("program", blocks("python"), ids=["distillation", "study"])
def test_the_python_of_the_readme_runs(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown: dict[str, object] = {}
    exec(program, shown)  # noqa: S102 - our own README
    assert callable(shown["student"])


def test_every_preset_has_its_row_and_every_piece_its_mention() -> None:
    for preset in presets():
        assert f"| `{preset}` |" in README
    for family in families_of(Config):
        for kind in family.built_in:
            assert f"`{kind}`" in README


@pytest.mark.parametrize("words", commands_elsewhere(), ids=" ".join)
def test_every_command_in_the_text_is_understood(words: list[str]) -> None:
    parser = {"ensdistill": ensdistill.cli.main, "ensdistill-tune": ensdistill_tune.cli.main}[words[0]]._parser()
    parser.parse_args(words[1:])


@pytest.mark.parametrize("script", [*blocks("bash"), *blocks("bash slurm")], ids=lambda text: text.split("\n")[0])
def test_every_script_of_the_readme_is_a_script(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.ray
@pytest.mark.parametrize("command", ["get-auth-token", "start", "symmetric-run"])
def test_ray_knows_the_options_that_the_readme_gives_it(command: str) -> None:
    text = "\n".join([*blocks("bash"), *blocks("bash slurm")])
    shown = {
        o for line in re.findall(rf"ray {command} (.*)", text) for o in re.findall(r"--[a-z-]+", line.split(" -- ")[0])
    }
    known = subprocess.run(
        [Path(sys.executable).parent / "ray", command, "--help"], capture_output=True, text=True, check=True
    )
    assert shown
    assert {option for option in shown if option not in known.stdout} == set()


def test_the_image_for_kubernetes_has_the_ray_of_the_constraints() -> None:
    (pinned,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (dockerfile,), (job,) = blocks("dockerfile"), blocks("yaml kubernetes")
    cluster = yaml.safe_load(job)["spec"]["rayClusterSpec"]
    assert f"FROM rayproject/ray:{pinned}-py311-gpu\n" in dockerfile
    assert cluster["rayVersion"] == pinned
    pods = [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]
    for pod in pods:
        assert pod["spec"]["containers"][0]["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["shared"]


@pytest.mark.e2e
def test_the_three_lines_that_need_no_torch_classify_an_image(tiny: TinyStudy, tmp_path: Path) -> None:
    done = call(
        "ensdistill-tune", "export", "tiny", "--studies-dir", tiny.studies, "--out", tmp_path, "--formats", "onnx"
    )
    assert done.code == 0, done.err
    image = load_data(load_config(tiny.home / "best" / "config.yaml").data).validation.images[0, 0].numpy()
    Image.fromarray(image).save(tmp_path / "winner" / "three.png")
    refuse = "import sys; sys.modules.update(torch=None, ensdistill=None)\n"
    program = [sys.executable, "-c", refuse + blocks("python onnx")[0]]
    ran = subprocess.run(program, cwd=tmp_path / "winner", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert sum(map(float, re.findall(r"\d\.\d+(?:e-\d+)?", ran.stdout))) == pytest.approx(1, abs=1e-3)


def test_the_output_that_the_readme_shows_has_the_lines_of_a_real_one(tiny: TinyStudy, tmp_path: Path) -> None:
    study, exported = blocks("text")
    labels = set(re.findall(r"^([a-z]+(?: [a-z]+)?: )", tiny.done.out, re.MULTILINE)) - {"study tiny: "}
    assert {"verdict: ", "best settings: "} <= labels
    assert {label for label in labels if label not in study} == set()
    words = ["--studies-dir", tiny.studies, "--out", tmp_path, "--trial", "1"]
    done = call("ensdistill-tune", "export", "tiny", *words)
    columns = {word.strip() for line in done.out.splitlines() if line.startswith("┃") for word in line.split("┃")}
    assert {word for word in columns if word not in exported} == set()


def test_the_table_of_all_settings_is_up_to_date() -> None:
    assert shown() == in_markdown() + "\n", "python -m tests.settings_table writes it anew"


def test_the_readme_counts_searchers_and_schedulers() -> None:
    count = [len(get_args(get_args(union)[0])) for union in (Searcher, Scheduler)]
    assert f"| samplers and schedulers to choose from | {count[0]} and {count[1]} |" in README


def test_links_within_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_search_spaces_begin_with_their_command() -> None:
    for file in (ROOT / "search_spaces").glob("*.yaml"):
        assert f"ensdistill-tune launch search_spaces/{file.name}" in file.read_text().splitlines()[0]


def test_the_piece_that_the_readme_adds_is_a_perturbation() -> None:
    (program,) = re.findall(r"^   ```py\n(.*?)^   ```$", README, re.DOTALL | re.MULTILINE)
    shown = vars(perturbations).copy()
    as_in_the_file = "from __future__ import annotations\n" + textwrap.dedent(program)
    exec(as_in_the_file, shown)  # noqa: S102 - our own README
    (piece,) = [value for name, value in shown.items() if name not in vars(perturbations) and isinstance(value, type)]
    x = torch.full((2, 1, 4, 4), 0.5)
    moved = piece(step_size=0.01)(x, None, None, RandomStreams.of(0, "docs", 1, torch.device("cpu"))) - x
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((2,), 0.04))


PUBLISHED = {  # METHODS of the papers, as their official code has them
    "latentbe": {
        "student": {"subnetworks": 4, "factor_init": "ones", "factor_gradient": "sum", "factor_lr": 1.0}
        | {"factor_decay": "to_one", "bias": "shared", "merge": "product_of_means", "merge_after": 1.0},
        "perturbation": {"kind": "tdiv_sdiv", "step_size": pytest.approx(1 / 255), "label_images": "perturbed"},
        "loss": {"kind": "one_to_one", "temperature": 4.0, "alpha": 1.0},
        "averaging": {"kind": "none", "refresh_batchnorm": False},
        "training": {"lr_schedule": "cosine", "optimizer": {"nesterov": True, "momentum": 0.9, "weight_decay": 5e-4}},
    },
    "diversity": {
        "student": {"subnetworks": 4, "factor_init": "normal", "factor_std": 0.5, "factor_gradient": "mean"}
        | {"factor_lr": 0.5, "factor_decay": "none", "bias": "per_member", "merge": "mean_of_probabilities"},
        "perturbation": {"kind": "conf_ods", "step_size": pytest.approx(1 / 255), "label_images": "clean"},
        "loss": {"kind": "one_to_one", "temperature": 4.0, "alpha": 0.9},
        "averaging": {"kind": "none", "refresh_batchnorm": False},
        "training": {
            "lr_schedule": "linear",
            "warmup_epochs": 5,
            "min_lr_ratio": 0.01,
            "optimizer": {"nesterov": False},
        },
    },
    "aekd": {
        "student": {"kind": "single"},
        "perturbation": {"kind": "none"},
        "loss": {"temperature": 4.0, "label_weight": 1.0, "teacher_weight": 0.9, "tolerance": 0.6},
        "training": {"lr_schedule": "multistep", "warmup_epochs": 0, "optimizer": {"nesterov": True}},
    },
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_settings_are_those_of_the_papers(preset: str) -> None:
    config = load_config(preset).model_dump()
    for axis, settings in PUBLISHED[preset].items():
        own = flatten(config[axis])
        assert {name: own[name] for name in flatten(settings)} == flatten(settings)


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


EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def shown_in(text: str, language: str) -> list[tuple[str, str]]:
    """Each block of a language with the name of its file, empty if it has none."""
    return re.findall(rf"^```{language}(?: ([\w.]+))?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_page_for_plugin_authors_is_true(tmp_path: Path) -> None:
    """Its modules are written, its settings read, its Python run, its suites tested."""
    blocks_with_files = [(file, text) for file, text in shown_in(EXTENDING, "python") if file]
    for file, text in blocks_with_files:
        (tmp_path / file).write_text(text)
    assert [file for file, _ in blocks_with_files] == ["my_methods.py", "test_my_methods.py"]
    with importable(tmp_path):
        for file, text in shown_in(EXTENDING, "python"):
            if not file:
                exec(text, {})  # noqa: S102 - our own page
        for n, (_, text) in enumerate(shown_in(EXTENDING, "yaml")):
            (tmp_path / f"{n}.yaml").write_text(text)
        assert load_config(tmp_path / "0.yaml").loss.kind == "my_methods:Focal"
        assert "loss.gamma" in load_study(tmp_path / "1.yaml").search
        for (_, text), names in zip(shown_in(EXTENDING, "toml"), [("focal", "label_probability")], strict=True):
            groups = tomllib.loads(text)["project"]["entry-points"]
            assert tuple(name for group in groups.values() for name in group) == names
            distribution(tmp_path / "site", "mine", {g.partition(".")[2]: e for g, e in groups.items()}, {})
        with importable(tmp_path / "site"):
            assert load_config("kd", ["loss.kind=focal", "loss.gamma=3"]).loss.kind == "focal"


def test_the_page_for_plugin_authors_names_every_family_with_its_base_class() -> None:
    rows = [line.split("|") for line in EXTENDING.splitlines() if line.startswith("| ") and "`ensdistill." in line]
    groups = {row[4].strip(" `"): row[2].split("`")[1] for row in rows}
    assert groups.keys() == {family.group for family in families_of(Config)}
    for family in families_of(Config):
        assert pkgutil.resolve_name(groups[family.group]) is family.base


@pytest.mark.e2e
def test_the_suites_of_the_page_pass_where_nothing_else_is_configured(tmp_path: Path) -> None:
    for file, text in shown_in(EXTENDING, "python"):
        if file:
            (tmp_path / file).write_text(text)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_methods.py"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tune"), str(tmp_path)])}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "warning" not in done.stdout
