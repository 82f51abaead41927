"""CSV and Parquet tables of images, valid and invalid."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ensdistill.data import RawData, Table
from ensdistill.errors import DataError

ROWS = [("a.png", "cat", "train"), ("b.png", "dog", "train"), ("c.png", "dog", "test"), ("d.png", "", "unlabeled")]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for n, (name, *_) in enumerate(ROWS):
        Image.new("RGB", (8, 8), (50 * n, 0, 0)).save(tmp_path / name)
    return tmp_path


def write_csv(folder: Path, rows: list[tuple[str, ...]], header: str = "path,label,split") -> Path:
    lines = [header, *(",".join(row) for row in rows)]
    (folder / "table.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return folder / "table.csv"


def read(file: Path, **changes: object) -> RawData:
    return Table.model_validate({"path": str(file), "size": 8, "split_column": "split"} | changes)()


def assert_parts(raw: RawData) -> None:
    assert raw.class_names == ("cat", "dog")
    assert raw.pool.labels.tolist() == [0, 1]
    assert raw.pool.images[:, 0, 0, 0].tolist() == [0, 50]
    assert raw.test is not None
    assert raw.unlabeled is not None
    assert (raw.test.labels.tolist(), raw.test.images[:, 0, 0, 0].tolist()) == ([1], [100])
    assert (raw.unlabeled.labels.tolist(), raw.unlabeled.images[:, 0, 0, 0].tolist()) == ([-1], [150])


def test_a_csv_file_gives_images_and_labels_and_splits(images: Path) -> None:
    assert_parts(read(write_csv(images, ROWS)))


def test_a_parquet_file_gives_the_same_data_as_a_csv_file(images: Path) -> None:
    columns = dict(zip(("path", "label", "split"), map(list, zip(*ROWS, strict=True)), strict=True))
    pq.write_table(pa.table(columns), images / "t.parquet")
    assert_parts(read(images / "t.parquet"))


def test_paths_in_a_table_may_be_relative_to_another_folder(images: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert_parts(read(write_csv(tmp_path / "elsewhere", ROWS), root=str(images)))


def test_numeric_class_names_are_ordered_as_numbers(images: Path) -> None:
    rows = [("a.png", "10", "train"), ("b.png", "9", "train"), ("c.png", "10", "train")]
    raw = read(write_csv(images, rows))
    assert raw.class_names == ("9", "10")
    assert raw.pool.labels.tolist() == [1, 0, 1]


def test_without_a_split_column_rows_without_a_label_are_unlabeled(images: Path) -> None:
    raw = read(write_csv(images, ROWS), split_column=None)
    assert raw.pool.labels.tolist() == [0, 1, 1]
    assert raw.unlabeled is not None
    assert len(raw.unlabeled) == 1
    assert any("'split' of the table is not used" in str(warning) for warning in raw.warnings)


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (ROWS, {"label_column": "class"}, "data.label_column: no column 'class'; give one of path, label, split"),
        ([*ROWS, ("a.png", "cow", "test")], {}, "the test split has labels that no training image has: cow"),
        ([*ROWS, ("a.png", "", "val")], {}, "row 5 of the validation split has no label"),
        ([*ROWS, ("a.png", "cat", "later")], {}, "row 5 has 'later'; use train, val, test or unlabeled"),
        ([*ROWS, ("", "cat", "train")], {}, "row 5 has no path"),
        ([*ROWS, ("gone.png", "cat", "train")], {}, "1 image cannot be read: no such file or directory: gone.png"),
        (ROWS[:1], {}, "at least two classes are required"),
    ],
)
def test_an_invalid_table_is_rejected_and_the_error_states_the_row(
    images: Path, rows: list[tuple[str, ...]], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write_csv(images, rows), **changes)


def test_a_file_that_is_not_a_table_is_rejected(images: Path) -> None:
    (images / "t.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        read(images / "t.parquet")
