"""Claims of the documents about presets, pieces, files and output are true."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import jsonschema
import pytest
import yaml
from generated.pieces import other_pieces, pieces
from PIL import Image
from pydantic import BaseModel

from ensdistill.config import Config, flatten, load_config, presets
from ensdistill.data import load_data
from ensdistill.settings.validation import kind_of, pieces_of
from ensdistill_tune.study.study_config import StudyConfig
from tests.commands import call
from tests.docs.documents import DOCUMENTS, README, ROOT, page
from tests.servers import free_port, listens, wait_until
from tests.tiny import TinyStudy

COMPONENTS = {"student": "students", "perturbation": "perturbations", "loss": "losses", "averaging": "averaging"}
CLUSTERS = [page(f"guides/{name}") for name in ("ray-cluster", "slurm", "kubernetes", "spot-machines")]


def test_the_readme_is_short_and_begins_with_make_study_and_make_test() -> None:
    lines = README.text.splitlines()
    assert len(lines) <= 250
    assert "\n".join(lines[:40]).index("make study") < "\n".join(lines[:40]).index("make test ")


def test_no_document_contains_an_html_comment() -> None:
    assert [str(document) for document in DOCUMENTS if "<!--" in document.text] == []


def test_every_preset_has_a_card_and_a_table_row() -> None:
    for preset in presets():
        assert f"| [`{preset}`](docs/methods/{preset}.md) |" in README.text
        card = page(f"methods/{preset}").text
        assert f"```{{preset}} {preset}\n" in card
        for part in ("**Idea.**", "## Formulas", "| component | piece |"):
            assert part in card, (preset, part)
        assert preset == "labels" or ("## Source" in card and "## Differences from" in card), preset


def test_a_card_lists_the_pieces_of_its_preset() -> None:
    for preset in presets():
        rows = dict(re.findall(r"^\| (\w+) \| \[`(\w+)`\]", page(f"methods/{preset}").text, re.MULTILINE))
        config = load_config(preset)
        assert {part: rows[part] for part in COMPONENTS} == {part: getattr(config, part).kind for part in COMPONENTS}


@pytest.mark.parametrize("section", COMPONENTS)
def test_every_piece_has_a_section_and_the_sections_of_new_pieces_are_generated(section: str) -> None:
    text = page(f"methods/{COMPONENTS[section]}").text
    assert set(re.findall(rf"^```{{piece}} {section}\.(\w+)$", text, re.MULTILINE)) <= set(pieces(section))
    assert f"```{{other-pieces}} {section}\n" in text


def test_a_missing_section_of_a_piece_is_generated_from_the_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("generated.pieces.METHODS", tmp_path)
    (tmp_path / "losses.md").write_text("```{piece} loss.averaged\n```\n")
    text = other_pieces("loss")
    assert "## `ekd`" in text
    assert "## `averaged`" not in text


def kinds(model: type[BaseModel], field: str) -> set[str]:
    return {kind_of(piece) for piece in pieces_of(model.model_fields[field])}


def test_every_piece_that_the_readme_mentions_exists() -> None:
    for field in COMPONENTS:
        (row,) = re.findall(rf"^\| {field} \| `{field}\.kind` \| (.*) \|$", README.text, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) <= kinds(Config, field)
    (data, models), *_ = re.findall(r"^Data: (.*?)\. Models: (.*?)\.$", README.text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", data)) <= kinds(Config, "data")
    assert set(re.findall(r"`(\w+)`", models)) <= kinds(Config, "model")
    for name in kinds(StudyConfig, "searcher") | kinds(StudyConfig, "scheduler"):
        assert f"`{name}`" in README.text, name


def test_the_page_on_peers_states_the_correct_number_of_searchers_and_schedulers() -> None:
    count = [len(kinds(StudyConfig, field)) for field in ("searcher", "scheduler")]
    row = f"| number of samplers, number of schedulers | {count[0]} and {count[1]} |"
    assert row in page("benchmarks/peers").text


def test_measurement_tables_state_a_date_and_a_number_of_seeds() -> None:
    for name in ("presets", "first-study", "search-spaces", "digits", "cifar10"):
        (line,) = re.findall(r"^\*Measured on .*?\*$", page(f"benchmarks/{name}").text, re.MULTILINE | re.DOTALL)
        assert re.search(r"\d{4}-\d\d-\d\d", line)
        assert re.search(r"n = \d", line)
        assert "EPYC" in line


def test_every_search_space_is_documented_with_its_command_and_result() -> None:
    for file in (ROOT / "search_spaces").glob("*.yaml"):
        assert f"ensdistill-tune launch search_spaces/{file.name}" in file.read_text().splitlines()[0]
        for name in ("benchmarks/search-spaces", "guides/choose-what-to-search"):
            assert f"](../../search_spaces/{file.name})" in page(name).text


@pytest.mark.ray
@pytest.mark.parametrize("command", ["get-auth-token", "start", "symmetric-run", "up", "exec", "down", "job submit"])
def test_every_ray_option_that_the_guides_mention_exists(command: str) -> None:
    blocks = [text for one in CLUSTERS for kind in ("bash", "yaml") for text in one.blocks_of(kind, None)]
    lines = re.findall(rf"ray {command} (.*)", "\n".join(blocks).replace("\\\n", " "))
    shown = {option for line in lines for option in re.findall(r"--[a-z-]+", re.split(r' -- | "', line)[0])}
    known = subprocess.run(
        [Path(sys.executable).parent / "ray", *command.split(), "--help"], capture_output=True, text=True, check=True
    )
    assert shown
    assert {option for option in shown if option not in known.stdout} == set()


def test_the_kubernetes_image_has_the_ray_version_pinned_in_constraints_txt() -> None:
    (pinned,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    guide = page("guides/kubernetes")
    (dockerfile,), (job,) = guide.blocks_of("dockerfile"), guide.blocks_of("yaml", "kubernetes")
    cluster = yaml.safe_load(job)["spec"]["rayClusterSpec"]
    assert f"FROM rayproject/ray:{pinned}-py311-gpu\n" in dockerfile
    assert cluster["rayVersion"] == pinned
    pods = [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]
    for pod in pods:
        assert pod["spec"]["containers"][0]["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["shared"]


@pytest.mark.ray
def test_the_cluster_file_for_ray_up_is_valid_for_the_pinned_ray_version() -> None:
    import ray

    (text,) = page("guides/spot-machines").blocks_of("yaml", "ray-cluster")
    cluster = yaml.safe_load(text)
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    assert cluster["head_node_type"] in cluster["available_node_types"]
    assert cluster["available_node_types"]["gpu"]["max_workers"] <= cluster["max_workers"]
    monitor = "RAY_memory_monitor_refresh_ms=0"  # as in `execution/environment.py`
    starts = [cluster[f"{who}_start_ray_commands"][-1] for who in ("head", "worker")]
    assert all(line.startswith(f"{monitor} ray start ") for line in starts)


REFUSE = "import sys; sys.modules.update(torch=None, ensdistill=None)\n"


@pytest.fixture(scope="module")
def winner(tiny: TinyStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported winner, which also contains the image `three.png`."""
    out = tmp_path_factory.mktemp("export")
    done = call("ensdistill-tune", "export", "tiny", "--studies-dir", tiny.studies, "--out", out, "--formats", "onnx")
    assert done.code == 0, done.err
    pixels = load_data(load_config(tiny.home / "best" / "config.yaml").data).validation.images[0, 0].numpy()
    for folder in (out, out / "winner"):
        Image.fromarray(pixels).resize((90, 70)).save(folder / "three.png")
    return out / "winner"


@pytest.mark.e2e
@pytest.mark.parametrize("role", ["onnx", "export"])
def test_exported_files_classify_an_image_as_shown_in_the_guide(winner: Path, role: str) -> None:
    folder, refuse = (winner, REFUSE) if role == "onnx" else (winner.parent, "")
    (text,) = page("guides/export-and-serve").blocks_of("python", role)
    program = [sys.executable, "-c", refuse + text]
    ran = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    probabilities = ran.stdout[ran.stdout.rindex("[[") :]
    assert sum(map(float, re.findall(r"\d\.\d+(?:e-\d+)?", probabilities))) == pytest.approx(1, abs=1e-3)


@pytest.mark.e2e
def test_the_ten_line_program_in_the_guide_serves_a_student_over_http(winner: Path) -> None:
    (text,) = page("guides/export-and-serve").blocks_of("python", "serve")
    assert len([line for line in text.splitlines() if line.strip()]) == 10
    port = free_port()
    program = [sys.executable, "-c", REFUSE + text.replace("8000", str(port))]
    with subprocess.Popen(program, cwd=winner, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: server.poll() is not None or listens(port), "the student is served", seconds=90)
            image = (winner / "three.png").read_bytes()
            with urlopen(f"http://127.0.0.1:{port}", image, timeout=60) as answer:
                probabilities = json.loads(answer.read())
        finally:
            server.kill()
    (expected,) = json.loads(call("ensdistill", "predict", winner, winner / "three.png", "--format", "json").out)
    assert probabilities == pytest.approx(expected["probabilities"], abs=0.01)


def test_transcripts_contain_the_lines_of_a_real_run(tiny: TinyStudy, tmp_path: Path) -> None:
    (study,) = page("getting-started/first-study").blocks_of("text")
    (exported,) = page("guides/export-and-serve").blocks_of("text")
    labels = set(re.findall(r"^([a-z]+(?: [a-z]+)?: )", tiny.done.out, re.MULTILINE)) - {"study tiny: "}
    assert {"verdict: ", "best settings: "} <= labels
    assert {label for label in labels if label not in study} == set()
    words = ["--studies-dir", tiny.studies, "--out", tmp_path, "--trial", "1"]
    done = call("ensdistill-tune", "export", "tiny", *words)
    columns = {word.strip() for line in done.out.splitlines() if line.startswith("┃") for word in line.split("┃")}
    assert {word for word in columns if word not in exported} == set()


def test_the_readme_output_is_an_excerpt_of_the_transcript() -> None:
    (lines,), (transcript,) = README.blocks_of("text"), page("getting-started/first-study").blocks_of("text")
    assert len(lines.splitlines()) == 12
    assert set(lines.splitlines()) <= set(transcript.splitlines())


def test_every_study_file_is_documented(tiny: TinyStudy) -> None:
    described = set(re.findall(r"^\| `([^`]+)` \|", page("reference/study-files").text, re.MULTILINE))
    found = {str(path.relative_to(tiny.home)) for path in tiny.home.rglob("*") if path.is_file()}
    general = {re.sub(r"^figures/.*", "figures/", re.sub(r"^trials/\d+/", "trials/<number>/", name)) for name in found}
    assert general - described == set()
    beside = {path.name + "/" * path.is_dir() for path in tiny.studies.iterdir() if path.name != "tiny"}
    assert beside - described == set()


PUBLISHED = {  # METHODS of the papers, as implemented in their official code
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
def test_presets_have_the_settings_published_in_their_papers(preset: str) -> None:
    config = load_config(preset).model_dump()
    for component, settings in PUBLISHED[preset].items():
        own = flatten(config[component])
        assert {name: own[name] for name in flatten(settings)} == flatten(settings)


@pytest.mark.parametrize("preset", presets())
def test_every_preset_states_its_source_and_marks_reconstructions(preset: str) -> None:
    file = (ROOT / "ensdistill" / "presets" / f"{preset}.yaml").read_text()
    heading = "".join(line for line in file.splitlines(True) if line.startswith("#"))
    assert preset == "labels" or re.search(r"\d{4}", heading), "a year"
    guessed = preset in ("ekd", "unikd")
    row = next(line for line in README.text.splitlines() if line.startswith(f"| [`{preset}`]"))
    card = page(f"methods/{preset}").text
    assert ("RECONSTRUCTION" in heading, "**reconstruction**" in row, "**reconstruction**" in card) == (guessed,) * 3
