"""An exported student classifies image files."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ensdistill import Classifier, ConfigError, DataError, DistillationRun, export_student, open_classifier
from ensdistill.cli.predict import BATCH, ImagePrediction, classify
from ensdistill.cli.prediction_inputs import find_images
from ensdistill.cli.prediction_writers import write_table
from ensdistill.data import DataSplits
from ensdistill.data.image_files import ImageFile
from ensdistill.evaluation.predict import predict
from ensdistill.training.new_student import new_student
from tests.commands import Done, call
from tests.unit.core.core_stand_ins import tiny_config

KINDS = ("safetensors", "onnx", "pt2")


@pytest.fixture(scope="module")
def run(digits: DataSplits) -> DistillationRun:
    config = tiny_config()
    return DistillationRun(config, digits, new_student(config, digits).merged().eval(), "strangers")


@pytest.fixture(scope="module")
def model(run: DistillationRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(run, tmp_path_factory.mktemp("model")).folder


@pytest.fixture
def images(run: DistillationRun, tmp_path: Path) -> Path:
    """The first twelve validation images as PNG files in two subfolders: 00.png, 02.png, ... and 01.png, 03.png, ..."""
    for n in range(12):
        place = tmp_path / "images" / ("even", "odd")[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(run.data.validation.images[n, 0].numpy()).save(place / f"{n:02}.png")
    return tmp_path / "images"


ORDER = [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]


def expected(run: DistillationRun) -> np.ndarray:
    """Probabilities of the twelve images, in the order of their names."""
    p: np.ndarray = predict(run.network, run.data.validation).exp().numpy()[ORDER]
    return p


def rows_of(done: Done) -> list[dict[str, str]]:
    return list(csv.DictReader(done.out.splitlines()))


def figures_of(rows: list[dict[str, str]]) -> np.ndarray:
    return np.array([[float(row[f"p({k})"]) for k in range(10)] for row in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_every_export_format_gives_the_probabilities_of_the_student(
    kind: str, run: DistillationRun, model: Path, images: Path
) -> None:
    done = call("ensdistill", "predict", model / f"student.{kind}", images, "--format", "csv")
    assert (done.code, done.err) == (0, "")
    rows = rows_of(done)
    assert [Path(row["file"]).stem for row in rows] == [f"{n:02}" for n in ORDER]
    np.testing.assert_allclose(figures_of(rows), expected(run), atol=1e-5)
    assert [row["class"] for row in rows] == [str(k) for k in expected(run).argmax(1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected(run).max(1), atol=1e-5)


def test_json_contains_every_probability_keyed_by_class_name(run: DistillationRun, model: Path, images: Path) -> None:
    told = json.loads(call("ensdistill", "predict", model, images, "--format", "json").out)
    assert [Path(answer["file"]).parent.name for answer in told] == ["even"] * 6 + ["odd"] * 6
    p = [[answer["probabilities"][str(k)] for k in range(10)] for answer in told]
    np.testing.assert_allclose(p, expected(run), atol=1e-5)


def test_the_table_lists_the_most_likely_classes_first(run: DistillationRun, model: Path, images: Path) -> None:
    done = call("ensdistill", "predict", model, images / "even" / "00.png", "--top", "3")
    (line,) = [line for line in done.out.splitlines() if "00.png" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    best = np.argsort(-expected(run)[0])[:3]
    assert cells[1:] == [text for k in best for text in (str(k), f"{expected(run)[0, k]:.4f}")]


def test_csv_and_json_list_only_the_most_likely_classes_if_top_is_set(
    run: DistillationRun, model: Path, images: Path
) -> None:
    words = ("ensdistill", "predict", model, images / "even" / "00.png", "--top", "3", "--format")
    best = [str(k) for k in np.argsort(-expected(run)[0])[:3]]
    (row,) = rows_of(call(*words, "csv"))
    assert [*row] == ["file", "class", "probability", "class_2", "probability_2", "class_3", "probability_3"]
    assert [row["class"], row["class_2"], row["class_3"]] == best
    (answer,) = json.loads(call(*words, "json").out)
    assert [*answer["probabilities"]] == best
    figures = [float(row[name]) for name in ("probability", "probability_2", "probability_3")]
    assert [*answer["probabilities"].values()] == figures
    np.testing.assert_allclose(figures, [expected(run)[0][int(k)] for k in best], atol=1e-5)


def test_the_predictions_for_many_images_are_printed_as_several_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensdistill.cli.prediction_writers.BLOCK", 3)
    text = io.StringIO()
    write_table((ImagePrediction(f"{n}.png", np.array([0.2, 0.8])) for n in range(7)), ("a", "b"), None, text)
    lines = text.getvalue().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("│")] == [f"{n}.png" for n in range(7)]
    assert sum(line.startswith("┏") for line in lines) == 3


def test_the_value_of_top_may_exceed_the_number_of_classes(model: Path, images: Path) -> None:
    assert call("ensdistill", "predict", model, images, "--top", "99").code == 0


@pytest.mark.parametrize("top", ["0", "-1", "many"])
def test_an_invalid_value_of_top_is_refused(top: str, model: Path, images: Path) -> None:
    assert call("ensdistill", "predict", model, images, "--top", top).code == 2


def test_files_and_folders_and_zip_files_are_classified_in_the_given_order(
    model: Path, images: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.write(images / "odd" / "03.png", "deep/er/03.png")
        archive.writestr("__MACOSX/deep/er/._03.png", b"x")
        archive.writestr("readme.txt", b"x")
    shutil.copy(images / "even" / "00.png", tmp_path / "named without suffix")
    places = [tmp_path / "some.zip", images / "even", tmp_path / "named without suffix"]
    rows = rows_of(call("ensdistill", "predict", model, *places, "--format", "csv"))
    names = [Path(row["file"]).name for row in rows]
    assert names == ["03.png", "00.png", "02.png", "04.png", "06.png", "08.png", "10.png", "named without suffix"]
    assert rows[0]["file"] == str(tmp_path / "some.zip" / "deep/er/03.png")
    np.testing.assert_array_equal(figures_of(rows)[1], figures_of(rows)[-1])


def test_a_broken_image_is_reported_and_skipped_and_all_others_are_classified(
    run: DistillationRun, model: Path, images: Path
) -> None:
    (images / "even" / "01.png").write_bytes(b"no image")
    done = call("ensdistill", "predict", model, images, "--format", "csv")
    assert done.code == 1
    np.testing.assert_allclose(figures_of(rows_of(done)), expected(run), atol=1e-5)
    first, last = done.err.splitlines()
    assert first.startswith(f"skipped: {images / 'even' / '01.png'} cannot be read: it is not an image")
    assert last == "1 of 13 images skipped"


def test_files_skipped_in_a_folder_are_listed_and_unreadable_files_cause_errors(
    model: Path, images: Path, tmp_path: Path
) -> None:
    (images / "readme.txt").write_text("no image")
    done = call("ensdistill", "predict", model, images, "--format", "csv")
    assert (done.code, len(rows_of(done))) == (0, 12)
    assert done.err == "1 file left out (not an image that Pillow can read): readme.txt\n"
    (images / "gone.png").symlink_to("nothing")
    done = call("ensdistill", "predict", model, images, "--format", "csv")
    assert (done.code, len(rows_of(done))) == (1, 12)
    assert "1 file left out (a broken link): gone.png" in done.err


def test_every_image_in_a_folder_is_classified_regardless_of_its_file_suffix(model: Path, images: Path) -> None:
    (images / "even/00.png").rename(images / "even/00.tif")
    (images / "even/02.png").rename(images / "even/02")
    Image.new("L", (8, 8)).save(images / "even/04.gif", save_all=True, append_images=[Image.new("L", (8, 8), 99)])
    done = call("ensdistill", "predict", model, images, "--format", "csv")
    assert (done.code, len(rows_of(done))) == (0, 13)
    assert done.err.startswith("1 file with several frames; only the first is read: ")


def test_file_names_that_are_not_utf_8_are_written_as_valid_text(model: Path, images: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(images / "even" / "00.png", odd)
    for form in ("csv", "json", "table"):
        done = call("ensdistill", "predict", model, os.fsdecode(odd), "--format", form, "--out", tmp_path / "out")
        assert (done.code, done.err) == (0, "")
        assert "caf\\xe9.png" in (tmp_path / "out").read_text(encoding="utf-8").replace("\\\\", "\\")


def test_if_all_images_are_broken_the_output_is_empty(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    done = call("ensdistill", "predict", model, tmp_path, "--format", "json")
    assert (done.code, json.loads(done.out)) == (1, [])


def test_color_images_of_a_different_size_are_converted_to_the_input_shape_of_the_network(
    model: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (31, 17), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("L", (8, 8), round(0.299 * 255)).save(tmp_path / "gray.png")
    rows = rows_of(call("ensdistill", "predict", model, tmp_path, "--format", "csv"))
    np.testing.assert_array_equal(*figures_of(rows))


@pytest.mark.parametrize(("name", "form"), [("x.csv", None), ("x.json", None), ("x.txt", None), ("x.csv", "json")])
def test_the_output_format_is_set_by_the_option_or_the_file_suffix(
    name: str, form: str | None, model: Path, images: Path, tmp_path: Path
) -> None:
    words = ("predict", model, images, "--out", tmp_path / name, *(("--format", form) if form else ()))
    done = call("ensdistill", *words)
    assert (done.code, done.out) == (0, "")
    text = (tmp_path / name).read_text()
    begins = {"csv": "file,class,probability,p(0)", "json": '[\n{"file": ', "txt": "┏━"}[form or name[2:]]
    assert text.startswith(begins)


def test_file_names_with_markup_are_printed_unchanged(
    run: DistillationRun, model: Path, images: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "[bold]a, :smile: b.png"
    shutil.copy(images / "even" / "00.png", odd)
    assert odd.name in call("ensdistill", "predict", model, odd).out
    assert rows_of(call("ensdistill", "predict", model, odd, "--format", "csv"))[0]["file"] == str(odd)


def given(monkeypatch: pytest.MonkeyPatch, *lines: bytes) -> None:
    """Writes the lines to standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"".join(lines))))


def test_paths_on_standard_input_are_classified_like_arguments(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(images / "odd" / "03.png", tmp_path / "a b.png")
    given(monkeypatch, f"{tmp_path}/a b.png\r\n\n{images}/even\n".encode(), os.fsencode(images / "odd" / "05.png"))
    listed = rows_of(call("ensdistill", "predict", model, "-", "--format", "csv"))
    places = (tmp_path / "a b.png", images / "even", images / "odd" / "05.png")
    assert listed == rows_of(call("ensdistill", "predict", model, *places, "--format", "csv"))
    assert len(listed) == 8


def test_listed_paths_that_cannot_be_read_are_counted_and_all_others_are_classified(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    lines = [images / "gone.png", tmp_path / "empty", tmp_path / "bad.zip", "a\0b", "x" * 300]
    lines.append(images / "odd" / "05.png")
    given(monkeypatch, *(f"{line}\n".encode() for line in lines))
    done = call("ensdistill", "predict", model, "-", "--format", "csv")
    assert (done.code, [Path(row["file"]).name for row in rows_of(done)]) == (1, ["05.png"])
    for cause in (
        "gone.png cannot be read: no such file",
        "no images found",
        "readable zip file",
        "null byte",
        "too long",
    ):
        assert cause in done.err
    assert done.err.splitlines()[-1] == "5 of 6 images skipped"


def test_standard_input_is_refused_if_it_is_empty_or_other_arguments_are_given(
    model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, b"\n")
    for words, cause in (([], "no images found"), ([images], "must be the only argument")):
        done = call("ensdistill", "predict", model, "-", *words)
        assert (done.code, cause in done.err) == (2, True)


def test_a_zip_file_listed_on_standard_input_is_not_overwritten(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", images))
    before = archive.read_bytes()
    given(monkeypatch, os.fsencode(archive))
    done = call("ensdistill", "predict", model, "-", "--out", archive)
    assert (done.code, "must not be one of the input files" in done.err) == (2, True)
    assert archive.read_bytes() == before


def test_an_image_listed_on_standard_input_is_not_overwritten(
    model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images / "odd" / "05.png"
    before = image.read_bytes()
    given(monkeypatch, os.fsencode(image))
    done = call("ensdistill", "predict", model, "-", "--out", image)
    assert (done.code, "must not be one of the input files" in done.err, image.read_bytes() == before) == (
        2,
        True,
        True,
    )


@pytest.mark.e2e
def test_a_closed_output_pipe_causes_no_error(model: Path, images: Path) -> None:
    command = [sys.executable, "-m", "ensdistill", "predict", model, images, "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        done.stdout.close()
        assert done.stderr.read() == ""


# --- errors ---


def test_missing_models_and_missing_images_cause_input_errors(model: Path, images: Path, tmp_path: Path) -> None:
    for words, told in (
        ([tmp_path / "nothing", images], "no such model"),
        ([tmp_path, images], "no exported model in this folder"),
        ([images / "even" / "00.png", images], "must be a file written by `ensdistill export`"),
        ([model, images, tmp_path / "a.png"], "a.png: no such file or folder"),
        ([model, model], "no images found"),
    ):
        done = call("ensdistill", "predict", *words)
        assert (done.code, done.out) == (2, ""), words
        assert told in done.err


def test_an_invalid_zip_file_causes_an_input_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK no")
    done = call("ensdistill", "predict", model, tmp_path / "x.zip")
    assert (done.code, "readable zip file" in done.err) == (2, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_model_is_reported_in_one_line(kind: str, model: Path, images: Path, tmp_path: Path) -> None:
    raw = (model / f"student.{kind}").read_bytes()
    for n, damaged in enumerate((b"", b"no model", raw[: len(raw) // 2])):
        file = tmp_path / f"{n}.{kind}"
        file.write_bytes(damaged)
        done = call("ensdistill", "predict", file, images)
        assert done.code == 2, damaged[:10]
        assert done.err.startswith(f"error: {file}: ")
        assert len(done.err.splitlines()) == 1


def test_weights_not_written_by_export_are_refused_and_the_error_states_the_fix(images: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "theirs.safetensors")
    done = call("ensdistill", "predict", tmp_path / "theirs.safetensors", images)
    assert (done.code, "export the student again with `ensdistill export`" in done.err) == (2, True)


# --- from Python ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", '[1, 8, "8"]'),
        ("shape", "[1, -8, 8]"),
        ("shape", "[1, 10000000, 10000000]"),
        ("shape", "[1, 8.5, 8]"),
        ("class_names", "[[1], [2]]"),
        ("class_names", '"0123456789"'),
    ],
)
def test_a_file_with_invalid_metadata_is_refused_before_the_network_is_built(
    name: str, value: str, run: DistillationRun, model: Path, tmp_path: Path
) -> None:
    save_file(load_file(model / "student.safetensors"), tmp_path / "x.safetensors", run.metadata | {name: value})
    with pytest.raises(DataError, match="the metadata lacks the image shape"):
        open_classifier(tmp_path / "x.safetensors")


def test_file_names_cannot_control_the_terminal(
    run: DistillationRun, model: Path, images: Path, tmp_path: Path
) -> None:
    names = json.dumps([f"\x1b]0;mine\x07{k}" for k in range(10)])
    evil = run.metadata | {"class_names": names}
    save_file(load_file(model / "student.safetensors"), tmp_path / "x.safetensors", evil)
    shutil.copy(images / "even" / "00.png", tmp_path / "\x1b[31m.png")
    (tmp_path / "\x1b[32m.png").write_bytes(b"broken")
    places = [tmp_path / "\x1b[31m.png", tmp_path / "\x1b[32m.png"]
    done = call("ensdistill", "predict", tmp_path / "x.safetensors", *places)
    assert done.code == 1
    assert "]0;mine" in done.out
    assert "\x1b" not in done.out + done.err


def test_writing_predictions_to_a_named_pipe_does_not_replace_the_pipe(
    model: Path, images: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    words = [images / "even" / "00.png", "--format", "csv", "--out", tmp_path / "pipe"]
    assert call("ensdistill", "predict", model, *words).code == 0
    assert os.read(reader, 100_000).startswith(b"file,class")
    assert (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_the_safetensors_file_in_a_folder_takes_precedence_over_onnx_and_pt2_files(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    for kind in KINDS:
        assert open_classifier(tmp_path / "model").path.name == f"student.{kind}"
        (tmp_path / "model" / f"student.{kind}").unlink()


def test_a_classifier_maps_bytes_to_probabilities_and_refuses_other_types(run: DistillationRun, model: Path) -> None:
    classifier = open_classifier(model)
    images = run.data.validation.images[:5].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(classifier(images), predict(run.network, run.data.validation)[:5].exp(), atol=1e-5)
    for wrong in (images.astype(np.float32), images.transpose(0, 3, 1, 2), images[0], images[:, :0]):
        with pytest.raises(ConfigError, match=r"requires uint8 \(N,H,W,1\)"):
            classifier(wrong)


def test_images_are_read_one_batch_at_a_time(images: Path) -> None:
    read = []

    def files() -> object:
        for n in range(3 * BATCH):
            read.append(n)
            yield ImageFile(images, "even/00.png")

    seen = []

    def answer(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(batch))
        return np.zeros((len(batch), 2)), np.zeros((len(batch), 2))

    answers = classify(Classifier(Path("m"), (1, 8, 8), ("a", "b"), answer), files(), pytest.fail)
    next(answers)
    assert len(read) == BATCH
    assert len(list(answers)) == 3 * BATCH - 1
    assert seen == [BATCH] * 3


def test_large_images_are_read_in_small_batches(images: Path) -> None:
    seen = []

    def answer(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(batch))
        return np.zeros((len(batch), 2)), np.zeros((len(batch), 2))

    classifier = Classifier(Path("m"), (1, 2048, 4096), ("a", "b"), answer)  # 8 million numbers per image
    files = [ImageFile(images, "even/00.png")] * 6
    assert len(list(classify(classifier, files, pytest.fail))) == 6
    assert seen == [4, 2]


def test_images_are_converted_to_the_input_shape_of_the_network_as_in_training(tmp_path: Path) -> None:
    wide = Image.new("RGB", (24, 8), "black")
    wide.paste("white", (8, 0, 16, 8))  # the central square
    wide.save(tmp_path / "wide.png")
    brightness = {}
    for resize in ("center_crop", "squash", "pad"):
        seen = list[np.ndarray]()

        def answer(batch: np.ndarray, seen: list[np.ndarray] = seen) -> tuple[np.ndarray, np.ndarray]:
            seen.append(batch)
            return np.zeros((1, 2)), np.zeros((1, 2))

        classifier = Classifier(Path("m"), (3, 24, 24), ("a", "b"), answer, resize)  # type: ignore[arg-type]
        next(classify(classifier, find_images([tmp_path]).files, pytest.fail))
        brightness[resize] = float(seen[0].mean() / 255)
    assert brightness == pytest.approx({"center_crop": 1, "squash": 1 / 3, "pad": 1 / 9}, abs=0.04)


def test_a_network_that_does_not_have_one_or_three_input_channels_cannot_classify_image_files(images: Path) -> None:
    strange = Classifier(Path("m"), (4, 8, 8), ("a", "b"), lambda batch: (batch, batch))
    with pytest.raises(DataError, match="but image files have 1 or 3"):
        next(classify(strange, find_images([images]).files, pytest.fail))


def test_equally_likely_classes_are_listed_in_class_order() -> None:
    assert ImagePrediction("x", np.array([0.2, 0.4, 0.4], dtype=np.float32)).top(3) == [1, 2, 0]


def test_input_files_are_not_overwritten(model: Path, images: Path, tmp_path: Path) -> None:
    own = tmp_path / "student.onnx"
    shutil.copy(model / "student.onnx", own)
    image = images / "even" / "00.png"
    for out in (own, image):
        before = out.read_bytes()
        done = call("ensdistill", "predict", own, image, "--out", out)
        assert (done.code, "must not be one of the input files" in done.err, out.read_bytes() == before) == (
            2,
            True,
            True,
        )


def test_files_in_an_input_folder_are_not_overwritten(model: Path, images: Path, tmp_path: Path) -> None:
    own = shutil.copytree(model, tmp_path / "export")
    seen = shutil.copytree(images, tmp_path / "copies")
    for out in (own / "student.safetensors", own / "MODEL_CARD.md", seen / "even" / "00.png"):
        before = out.read_bytes()
        done = call("ensdistill", "predict", own, seen, "--out", out)
        assert (done.code, "must not be one of the input files" in done.err, out.read_bytes() == before) == (
            2,
            True,
            True,
        )
    table = seen / "said.csv"
    for _ in range(2):  # a table of an earlier call may be overwritten
        assert call("ensdistill", "predict", own, seen, "--out", table).code == 0
