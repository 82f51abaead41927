"""Output, exit codes and input errors of the two commands."""

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ensdistill import Distiller, EpochResult
from ensdistill.config import Config
from ensdistill.errors import ConfigError
from ensdistill.models import Convnet
from ensdistill.settings.validation import settings_table
from ensdistill_tune.credentials import public
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking.target import check_uri
from tests.commands import call, process

SMALL = [
    word
    for setting in (
        "data.train_size=40",
        "data.val_size=60",
        "model.width=2",
        "teachers.model.width=2",
        "teachers.count=2",
        "teachers.training.epochs=1",
        "training.epochs=2",
    )
    for word in ("--set", setting)
]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder for all commands in this module, with a student of preset kd."""
    folder = tmp_path_factory.mktemp("commands") / "studies"
    done = call("ensdistill", "distill", "kd", *SMALL, "--studies-dir", folder, "--json", "--out", folder / "run")
    assert done.code == 0, done.err
    (folder / "result.json").write_text(done.out)
    return folder


def test_distill_prints_one_json_object_and_nothing_else(studies: Path) -> None:
    result = json.loads((studies / "result.json").read_text())
    assert {"accuracy", "nll", "brier", "ece", "cnll", "dee", "top1_agreement", "flops"} <= set(result["val"])
    assert result["epochs"] == 2
    assert len(result["teachers"]["members"]) == 2
    assert len(result["config_hash"]) == 16


@pytest.mark.e2e
def test_the_json_object_is_the_same_in_another_process(studies: Path, tmp_path: Path) -> None:
    words = ("--studies-dir", studies, "--json", "--out", tmp_path / "run")
    again = json.loads(process("ensdistill", "distill", "kd", *SMALL, *words).out)
    first = json.loads((studies / "result.json").read_text())
    assert (again["config_hash"], again["val"]) == (first["config_hash"], first["val"])


def test_repeating_a_distillation_gives_the_same_metrics(studies: Path) -> None:
    again = call("ensdistill", "distill", "kd", *SMALL, "--studies-dir", studies, "--json")
    first = json.loads((studies / "result.json").read_text())
    assert json.loads(again.out)["val"] == first["val"]


def test_saved_settings_are_read_back_as_the_same_settings(studies: Path) -> None:
    again = call("ensdistill", "distill", studies / "run" / "config.yaml", "--studies-dir", studies, "--json")
    assert json.loads(again.out)["config_hash"] == json.loads((studies / "result.json").read_text())["config_hash"]


def test_the_teachers_command_prints_metrics_of_the_ensemble_and_of_one_teacher(studies: Path) -> None:
    done = call("ensdistill", "teachers", "kd", *SMALL, "--studies-dir", studies)
    assert done.code == 0
    assert "ensemble of 2 teachers" in done.out
    assert "one teacher (mean)" in done.out


def test_the_evaluate_command_reads_the_test_split_only_on_request(studies: Path) -> None:
    config = studies / "run" / "config.yaml"
    assert set(json.loads(call("ensdistill", "evaluate", config, "--json").out)) >= {"validation"}
    tested = json.loads(call("ensdistill", "evaluate", config, "--json", "--split", "test").out)
    assert tested["split"] == "test"
    assert "validation" not in tested


def test_a_completed_run_is_not_resumed_from_its_checkpoint(studies: Path, tmp_path: Path) -> None:
    short = call(
        "ensdistill", "distill", "latentbe", *SMALL, "--studies-dir", studies, "--json", "--out", tmp_path / "a"
    )
    assert short.code == 0, short.err
    checkpoint = tmp_path / "a" / "checkpoint.pt"
    finished = call("ensdistill", "distill", "latentbe", *SMALL, "--studies-dir", studies, "--resume", checkpoint)
    assert finished.code == 2
    assert "this run has already completed" in finished.err


def test_help_shows_every_setting_with_its_description_and_default_and_range() -> None:
    shown = call("ensdistill", "distill", "--help").out
    for row in settings_table(Config):
        assert row.name in shown
        assert row.sentence in shown
        assert row.sentence
    assert "perturbation.step_size [tdiv_sdiv] = 0.003922; at least 0, at most 1" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["kd", "--set", "loss.temprature=2"],
            "loss.temprature: no such setting of averaged (did you mean temperature?)",
        ),
        (
            ["kd", "--set", "loss.temperature=0"],
            "loss.temperature: must be greater than or equal to 0.05, not 0",
        ),
        (
            ["latentbe", "--set", "student.subnetworks=0"],
            "student.subnetworks: must be greater than or equal to 1, not 0",
        ),
        (
            ["latentbe", "--set", "perturbation.step_size=-0.1"],
            "perturbation.step_size: must be greater than or equal to 0, not -0.1",
        ),
        (["kd", "--set", "training.epochs=ten"], "training.epochs: must be a whole number, not 'ten'"),
        (["kd", "--set", "training.optimizer.nesterov=1"], "training.optimizer.nesterov: must be true or false, not 1"),
        (["kd", "--set", "training.optimizer.lr=.nan"], "training.optimizer.lr: must be a finite number"),
        (["kd", "--set", "student.kind=batch_ensmble"], "did you mean batch_ensemble?"),
        (["kd", "--set", "epochs"], "must have the form name=value"),
        (["latentbe", "--set", "teachers.count=1"], "tdiv_sdiv requires at least two teachers"),
        (["kdd"], "kdd: neither a preset nor a YAML file (did you mean kd?)"),
        (["nowhere.yaml"], "nowhere.yaml: No such file or directory"),
        (["kd", "--set", "data={kind: image_folder, path: /nowhere/at/all}"], "/nowhere/at/all does not exist"),
        (
            ["kd", "--set", "data.train_size=5000"],
            "data.train_size: 5000 images are too many; 397 of 1797 labeled images are left",
        ),
        (["kd", "--set", "training.batch_size=500"], "training.batch_size: 500 is more than the 150 training images"),
        (
            ["kd", "--set", "teachers.training.batch_size=500"],
            "teachers.training.batch_size: 500 is more than the 150 training images",
        ),
        (["kd", "--set", "seed=2020-13-45"], "seed: must be a whole number, not '2020-13-45'"),
        (["kd", "--set", "seed=!!int abc"], "--set seed"),
        (["search_spaces/digits.yaml"], "this is a search space; run it with `ensdistill-tune launch`"),
        (["kd", "--resume", "nowhere.pt"], "nowhere.pt: no such checkpoint"),
        (["kd", "--device", "cuda:99"], "--device cuda:99: torch cannot use it here"),
    ],
)
def test_invalid_input_is_reported_in_one_line_with_exit_code_2(
    words: list[str], expected: str, tmp_path: Path
) -> None:
    done = call("ensdistill", "distill", *words, "--studies-dir", tmp_path / "studies")
    assert done.code == 2
    assert expected in done.err
    assert done.err.strip().count("\n") == 0, done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found nothing"),
        ("just words\n", "found a text"),
        ("seed: 1\nseed: 2\n", "line 2: seed is given twice"),
        ("seed: !!python/object/apply:os.getcwd []\n", "only plain values are allowed"),
        ("seed: [1\n", "line"),
    ],
)
def test_an_invalid_yaml_file_is_reported_in_one_line(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    done = call("ensdistill", "distill", file, "--studies-dir", tmp_path / "studies")
    assert done.code == 2
    assert str(file) in done.err
    assert expected in done.err


def test_a_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    where = ("--studies-dir", tmp_path / "studies", "--out", tmp_path / "run")
    done = call("ensdistill", "distill", "kd", "--set", "data.train_size=5000", *where)
    assert (done.code, (tmp_path / "run").exists()) == (2, False)


def test_each_error_is_printed_on_a_separate_line(tmp_path: Path) -> None:
    done = call(
        "ensdistill", "distill", "kd", "--set", "training.optimizer.lr=0", "--set", "seed=-1", "--set", "modell=1"
    )
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 3


def test_a_damaged_checkpoint_is_refused(studies: Path, tmp_path: Path) -> None:
    whole = (studies / "run" / "checkpoint.pt").read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole[: len(whole) // 2])
    done = call("ensdistill", "distill", "kd", *SMALL, "--studies-dir", studies, "--resume", cut)
    assert done.code == 2
    assert "damaged" in done.err


def test_a_checkpoint_with_different_settings_is_refused(studies: Path) -> None:
    other = call(
        "ensdistill",
        "distill",
        "kd",
        *SMALL,
        "--set",
        "seed=5",
        "--studies-dir",
        studies,
        "--resume",
        studies / "run" / "checkpoint.pt",
    )
    assert other.code == 2
    assert "made with different settings" in other.err


def test_a_student_with_different_settings_is_refused(studies: Path) -> None:
    student = studies / "run" / "student.safetensors"
    done = call("ensdistill", "evaluate", "kd", *SMALL, "--set", "seed=5", "--student", student)
    assert done.code == 2
    assert "trained with other settings" in done.err


def test_a_student_trained_on_different_images_is_not_evaluated(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    for n, pixels in enumerate(images):
        folder = tmp_path / "images" / ("cat" if n % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{n:02d}.png")
    file = tmp_path / "own.yaml"
    file.write_text(
        f"data: {{kind: image_folder, path: {tmp_path / 'images'}, size: 8, train_size: 20, val_size: 8, "
        f"test_size: 8}}\n"
        "model: {width: 2}\ntraining: {epochs: 1, batch_size: 10}\n"
        "teachers: {count: 2, model: {width: 2}, training: {epochs: 1, batch_size: 10}}\n"
    )
    words = ["--studies-dir", tmp_path / "studies"]
    assert call("ensdistill", "distill", file, *words).code == 0
    assert call("ensdistill", "evaluate", file, *words, "--split", "test").code == 0
    Image.fromarray(images[0]).save(tmp_path / "images" / "cat" / "new.png")
    for split in ("test", "validation"):
        refused = call("ensdistill", "evaluate", file, *words, "--split", split)
        assert refused.code == 2
        assert "trained with other images" in refused.err


def test_a_run_never_overwrites_another_run(studies: Path) -> None:
    before = (studies / "run" / "student.safetensors").read_bytes()
    done = call(
        "ensdistill", "distill", "kd", *SMALL, "--set", "seed=7", "--studies-dir", studies, "--out", studies / "run"
    )
    assert done.code == 2
    assert "contains another student" in done.err
    assert (studies / "run" / "student.safetensors").read_bytes() == before


def test_an_unreachable_ray_address_is_reported_immediately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    done = call("ensdistill-tune", "launch", "search_spaces/digits.yaml", "--studies-dir", tmp_path)
    assert done.code == 2
    assert "no Ray cluster answers there" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_reported_immediately(studies: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--port", str(port), "--studies-dir", studies, "--tracking-uri", "sqlite://"]
        done = call("ensdistill-tune", "ui", *words)
    assert done.code == 2
    assert f"--port {port}: cannot be used" in done.err


@pytest.mark.e2e
@pytest.mark.parametrize("state", ["training_teachers", "running", "confirming"])
def test_a_study_whose_process_died_is_shown_as_crashed(state: str, tmp_path: Path) -> None:
    settings = StudyConfig.model_validate({"search": {"seed": {"choice": [1]}}}).model_dump(mode="json")
    summary = {"name": "lost", "study": settings, "counts": {"running": 1}, "total": 3, "best": None}
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "study.json").write_text(json.dumps(summary | {"state": state}))
    hold = "import sys, time; from pathlib import Path\n"
    hold += "from ensdistill_tune.records.study_directory import StudyDirectory\n"
    hold += "with StudyDirectory(Path(sys.argv[1])).held(): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, tmp_path / "lost"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    shown = [call("ensdistill-tune", "status", "lost", "--json", "--studies-dir", tmp_path)]
    holder.kill()
    holder.wait()
    shown.append(call("ensdistill-tune", "status", "lost", "--json", "--studies-dir", tmp_path))
    assert [json.loads(done.out)["state"] for done in shown] == [state, "crashed"]


def test_a_folder_that_cannot_be_written_is_reported_before_any_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for done in (
        call("ensdistill", "distill", "kd", *SMALL, "--studies-dir", file / "studies"),
        call("ensdistill", "distill", "kd", *SMALL, "--studies-dir", tmp_path / "s", "--out", file / "out"),
        call("ensdistill-tune", "launch", "search_spaces/digits.yaml", "--studies-dir", file / "studies"),
    ):
        assert done.code == 2
        assert "cannot be written" in done.err
        assert "teacher 1" not in done.err


@pytest.mark.parametrize("name", ["a/b", "../up", "", "teachers", "datasets", "mlflow.db", ".hidden"])
def test_an_invalid_study_name_is_refused(name: str, tmp_path: Path) -> None:
    done = call("ensdistill-tune", "launch", "search_spaces/digits.yaml", "--studies-dir", tmp_path, "--name", name)
    assert done.code == 2
    assert "name: must consist of letters" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_tracking_store_is_reported_before_any_trial(tmp_path: Path) -> None:
    done = call(
        "ensdistill-tune",
        "launch",
        "search_spaces/digits.yaml",
        "--studies-dir",
        tmp_path,
        "--tracking-uri",
        "nonsense://x",
    )
    assert done.code == 2
    assert "tracking.uri nonsense://x: MLflow has no such store" in done.err


@pytest.mark.parametrize(
    "uri", ["http://me:planted@h:99x/", "https://h:0", "http://:5000", "http:///x", "postgresql://h:99999999/db"]
)
def test_a_tracking_store_without_host_or_port_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="host and port must be HOST or HOST:PORT") as caught:
        check_uri(public(uri))
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("uri", ["http://h", "http://[::1]:5000/base", "https://me:pl@nt%d@h:1/", "http://127.0.0.1:9"])
def test_a_tracking_store_with_a_valid_uri_is_accepted(uri: str) -> None:
    check_uri(public(uri))


def test_check_accepts_every_packaged_search_space_and_reports_it_in_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ensdistill_tune.execution.cost_estimate.epoch_seconds", lambda *_: 1.0)
    done = call("ensdistill-tune", "check", "search_spaces/digits.yaml", "--json")
    assert done.code == 0
    assert json.loads(done.out)["ok"] is True


def test_status_without_a_study_prints_a_command_that_launches_one(tmp_path: Path) -> None:
    done = call("ensdistill-tune", "status", "--studies-dir", tmp_path)
    assert done.code == 2
    assert "launch" in done.err


def test_evaluation_covers_teachers_and_corruptions_and_another_data_set(studies: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {"images": generator.integers(0, 256, (80, 16, 16, 3), dtype=np.uint8), "labels": np.arange(80) % 2}
    np.savez(tmp_path / "noise.npz", **arrays)
    other = tmp_path / "other.yaml"
    other.write_text(f"data: {{kind: npz, path: {tmp_path}/noise.npz, train_size: 10, val_size: 40, test_size: 20}}\n")
    words = ("evaluate", studies / "run" / "config.yaml", "--studies-dir", studies, "--corruptions", "--ood", other)
    done = call("ensdistill", *words, "--json", "--split", "test")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert 1 <= result["test"]["dee"] <= 2
    assert set(result["ood_auroc"]) == set(result["corruptions"]) == {"student", "ensemble"}
    assert all(0 <= value <= 1 for value in result["ood_auroc"].values())
    shown = call("ensdistill", *words)
    assert "OOD AUROC of the student" in shown.out
    assert "severity 5" in shown.out


def test_evaluation_without_the_teachers_prints_a_command_that_trains_them(studies: Path, tmp_path: Path) -> None:
    done = call("ensdistill", "evaluate", studies / "run" / "config.yaml", "--studies-dir", tmp_path / "empty")
    assert done.code == 0, done.err
    assert "trains them" in done.out
    assert "ensemble of" not in done.out


def test_evaluation_without_test_images_causes_an_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "few.npz", images=images, labels=np.arange(80) % 2)
    small = [
        word for s in ("training.epochs=1", "teachers.training.epochs=1", "teachers.count=1") for word in ("--set", s)
    ]
    sizes = "train_size: 40, val_size: 20, test_size: 0"
    (tmp_path / "few.yaml").write_text(f"data: {{kind: npz, path: {tmp_path}/few.npz, {sizes}}}\n")
    words = (tmp_path / "few.yaml", *small, "--studies-dir", tmp_path / "studies")
    assert call("ensdistill", "distill", *words).code == 0
    done = call("ensdistill", "evaluate", *words, "--split", "test")
    assert (done.code, "data.test_size: the data have no test images" in done.err) == (2, True)


def test_a_changed_teacher_file_is_detected(tmp_path: Path) -> None:
    def write_teacher(seed: int) -> None:
        torch.manual_seed(seed)
        torch.save(Convnet(width=2)((1, 8, 8), 10).state_dict(), tmp_path / "teacher.pt")

    file = f"{{path: {tmp_path}/teacher.pt, model: {{kind: convnet, width: 2}}}}"
    (tmp_path / "mine.yaml").write_text(
        f"data: {{train_size: 40, val_size: 60}}\ntraining: {{epochs: 1}}\nteachers: {{count: 0, checkpoints: "
        f"[{file}]}}\n"
    )
    words = (tmp_path / "mine.yaml", "--studies-dir", tmp_path / "studies")
    write_teacher(0)
    assert call("ensdistill", "distill", *words).code == 0
    assert "ensemble of 1 teacher" in call("ensdistill", "evaluate", *words).out
    write_teacher(1)
    again = call("ensdistill", "distill", *words)
    assert (again.code, "made with other teachers" in again.err) == (2, True)
    stranger = call("ensdistill", "evaluate", *words)
    assert (stranger.code, "was trained with other teachers" in stranger.out) == (0, True)
    (tmp_path / "teacher.pt").unlink()
    without = call("ensdistill", "evaluate", *words, "--split", "test")
    assert without.code == 0, without.err
    assert "require the teachers" in without.out


def test_a_batch_too_small_for_batchnorm_is_refused_before_teachers_are_trained(tmp_path: Path) -> None:
    one = ("--set", "training.batch_size=1", "--set", "model.blocks=4")
    done = call("ensdistill", "distill", "kd", *one, "--studies-dir", tmp_path / "studies")
    assert (done.code, "training.batch_size: 1 is too small for this network" in done.err) == (2, True)
    assert not list((tmp_path / "studies").glob("teachers/*/teacher.json"))


def test_suggested_commands_can_be_entered_unchanged(tmp_path: Path) -> None:
    done = call("ensdistill", "evaluate", "kd", "--set", "training.epochs=3", "--studies-dir", tmp_path / "my studies")
    assert f"`ensdistill distill kd --set training.epochs=3 --studies-dir '{tmp_path}/my studies'`" in done.err


def test_the_schema_accepts_packaged_search_spaces_and_rejects_a_misspelling() -> None:
    done = call("ensdistill-tune", "schema")
    assert done.code == 0
    check = jsonschema.Draft202012Validator(json.loads(done.out))
    for file in (Path(__file__).parents[4] / "search_spaces").glob("*.yaml"):
        tree = yaml.safe_load(file.read_text())
        assert check.is_valid(tree), file
        assert not check.is_valid(tree | {"objectiv": "val/nll"})


def test_an_interrupted_training_prints_a_command_that_resumes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Distiller):
        def __next__(self) -> EpochResult:
            if self.done:
                raise KeyboardInterrupt
            return super().__next__()

    words = ("distill", "kd", *SMALL, "--studies-dir", tmp_path, "--out", tmp_path / "my run")
    monkeypatch.setattr("ensdistill.pipeline.distill", Interrupted)
    done = call("ensdistill", *words)
    monkeypatch.undo()
    assert done.code == 130
    (line,) = [line for line in done.err.splitlines() if line.startswith("to resume: ")]
    told = shlex.split(line.removeprefix("to resume: "))
    resumed = call(*told, "--json")
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["epochs"] == 2
