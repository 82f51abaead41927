"""Files that are unreadable, misplaced or not images are read, rejected or reported, and never ignored silently."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensdistill.cli.prediction_inputs import find_images
from ensdistill.data import ImageFolder, RawData
from ensdistill.data.image_files import ImageFile
from ensdistill.data.walk import find_files
from ensdistill.errors import DataError

RNG = np.random.default_rng(0)


def picture(file: Path, form: str = "png") -> Path:
    """Writes a noisy image of 4x4 pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(file, form)
    return file


def pictures(root: Path, *classes: str, count: int = 2) -> Path:
    for name in classes:
        for n in range(count):
            picture(root / name / f"{n}.png")
    return root


def read(path: Path) -> RawData:
    return ImageFolder(path=str(path), size=4)()


def warnings_of(path: Path) -> str:
    return "\n".join(map(str, read(path).warnings))


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


def per_class(source: RawData) -> dict[str, int]:
    return dict(zip(source.class_names, source.pool.labels.bincount().tolist(), strict=True))


# --- folders ---


def test_links_to_class_folders_are_followed(tmp_path: Path) -> None:
    root, elsewhere = pictures(tmp_path / "in", "cat", "dog"), pictures(tmp_path / "else", "owl", count=3)
    (root / "owl").symlink_to(elsewhere / "owl")
    assert per_class(read(root)) == {"cat": 2, "dog": 2, "owl": 3}


def test_links_to_splits_and_individual_images_are_followed(tmp_path: Path) -> None:
    root, elsewhere = pictures(tmp_path / "in/train", "cat", "dog").parent, pictures(tmp_path / "else", "cat", "dog")
    (root / "test").symlink_to(elsewhere)
    (root / "train/cat/2.png").symlink_to(picture(tmp_path / "one.png"))
    source = read(root)
    assert source.test is not None
    assert (len(source.test), len(source.pool)) == (4, 5)


def test_the_data_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pictures(tmp_path / "in", "cat", "dog"))
    assert per_class(read(tmp_path / "link")) == {"cat": 2, "dog": 2}


def test_a_warning_names_broken_links_and_links_to_themselves(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog")
    (root / "cat/gone.png").symlink_to(tmp_path / "nothing")
    (root / "cat/self.png").symlink_to("self.png")
    (root / "owl").symlink_to(tmp_path / "nowhere")
    words = "3 files left out (a broken link): cat/gone.png, cat/self.png, owl"
    assert words in warnings_of(root)


def test_circular_links_are_skipped_and_named_in_a_warning(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog")
    (root / "cat/again").symlink_to(root)
    (root / "dog/up").symlink_to("..")
    assert per_class(read(root)) == {"cat": 2, "dog": 2}
    assert "2 files left out (a link to a folder that contains it): cat/again, dog/up" in warnings_of(root)


def test_two_links_to_the_same_folder_are_allowed(tmp_path: Path) -> None:
    root, elsewhere = pictures(tmp_path / "in", "cat"), pictures(tmp_path / "else", "x")
    (root / "dog").symlink_to(elsewhere / "x")
    (root / "owl").symlink_to(elsewhere / "x")
    assert per_class(read(root)) == {"cat": 2, "dog": 2, "owl": 2}


@pytest.mark.parametrize("zipped", [False, True])
def test_images_in_subfolders_of_a_class_folder_are_assigned_to_that_class_in_every_split(
    tmp_path: Path, zipped: bool
) -> None:
    root = tmp_path / "in"
    for part in ("train", "val", "test"):
        pictures(root / part, "cat", "dog")
        pictures(root / part / "cat", "more", "more/and more")
    source = read(zip_of(root) if zipped else root)
    assert source.test is not None
    assert source.validation is not None
    parts = (source.pool, source.validation, source.test)
    assert [part.labels.bincount().tolist() for part in parts] == [[6, 2]] * 3


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.tif", "tiff"),
        ("a.TIFF", "tiff"),
        ("a.gif", "gif"),
        ("a.jfif", "jpeg"),
        ("a.JPG", "jpeg"),
        ("a.jpe", "jpeg"),
        ("a.Png", "png"),
        ("a", "png"),
        ("image of a cat", "jpeg"),
        ("a.b.c", "webp"),
        ("a.dat", "bmp"),
        ("a.png", "jpeg"),
        ("a.tga", "tga"),
        ("a.pcx", "pcx"),
        ("a.pgm", "ppm"),
        ("a.qoi", "qoi"),
        ("a.ico", "ico"),
        ("a.jp2", "jpeg2000"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_file_that_pillow_can_read_is_read_regardless_of_its_suffix(
    tmp_path: Path, name: str, form: str, zipped: bool
) -> None:
    root = pictures(tmp_path / "in", "cat", "dog")
    picture(root / "dog" / name, form)
    source = read(zip_of(root) if zipped else root)
    assert per_class(source) == {"cat": 2, "dog": 3}
    assert source.warnings == ()


def test_skipped_files_are_counted_and_ten_of_them_are_named(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog")
    for n in range(12):
        (root / "cat" / f"note {n:02}.txt").write_text("no image")
    for n, content in enumerate((b"\x00\x01", b"P3 players", b"{}", b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"")):
        (root / f"{n}").write_bytes(content)
    words = warnings_of(root)
    assert "18 files left out (not an image that Pillow can read): 0, 1, 2, 3, 4, 5, cat/note 00.txt" in words
    assert words.split("\n")[0].endswith("cat/note 03.txt and 8 more")


def test_files_created_by_operating_systems_are_skipped(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog")
    for name in (".DS_Store", "cat/Thumbs.db", "cat/desktop.ini", "cat/._0.png", "__MACOSX/cat/._0.png"):
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(b"x")
    picture(root / "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "jpeg")
    assert per_class(read(root)) == {"cat": 2, "dog": 2}
    assert read(root).warnings == ()


def test_a_warning_names_hidden_images_and_folders(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog", ".ipynb_checkpoints")
    picture(root / "cat/.0.png")
    assert per_class(read(root)) == {"cat": 2, "dog": 2}
    assert "2 files left out (hidden: the name begins with a dot): .ipynb_checkpoints, cat/.0.png" in warnings_of(root)


@pytest.mark.parametrize("part", ["", "train", "val", "test"])
@pytest.mark.parametrize("content", ["nothing", "text", "broken link", "folder"])
def test_a_class_without_readable_images_is_rejected_in_every_split(tmp_path: Path, part: str, content: str) -> None:
    root = tmp_path / "in"
    for name in {part, "train"} if part else [""]:
        pictures(root / name, "cat", "dog", *(["owl"] if name != part else []))
    owl = root / part / "owl"
    owl.mkdir()
    if content == "text":
        (owl / "owl.heic").write_bytes(b"\0\0\0\x18ftypheic")
    if content == "broken link":
        (owl / "owl.png").symlink_to("nothing")
    if content == "folder":
        (owl / "more").mkdir()
    words = refusal(root)
    folder = str(Path(part) / "owl")
    assert f"no image in class folder {folder}" in words
    if content == "text":
        assert f"1 file left out (not an image that Pillow can read): {folder}/owl.heic" in words


def test_a_warning_names_images_outside_class_folders_and_splits(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in" / "train", "cat", "dog").parent
    pictures(root, "extra")
    for name in ("cover.png", "train/cover.png"):
        picture(root / name)
    words = warnings_of(root)
    assert "2 files left out (not in a class folder): cover.png, train/cover.png" in words
    assert "2 files left out (in a folder next to train/" in words
    assert "extra/0.png, extra/1.png" in words


def test_a_warning_names_a_split_without_class_folders(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in" / "train", "cat", "dog").parent
    picture(root / "test" / "0001.png")
    (root / "val").mkdir()
    source = read(root)
    assert source.test is None
    assert source.validation is None
    words = "\n".join(map(str, source.warnings))
    assert "1 file left out (not in a class folder): test/0001.png" in words
    assert "test/ contains no image in a class folder and is not used" in words
    assert "val/ contains no image in a class folder and is not used" in words


def test_a_pipe_is_not_read_as_an_image_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(pictures(tmp_path, "cat", "dog") / "cat/pipe.png")
    assert "1 file left out (not a regular file): cat/pipe.png" in warnings_of(tmp_path)


# --- permissions: root may read everything, so the system error is simulated ---


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a file or folder unreadable, as if it belonged to another user."""
    closed = set[str]()
    scandir, opened = os.scandir, Path.open

    def refuse(path: object) -> None:
        if str(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))

    def scan(path: Path) -> object:
        refuse(path)
        return scandir(path)

    def open_(path: Path, *words: object, **more: object) -> object:
        refuse(path)
        return opened(path, *words, **more)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(Path, "open", open_)
    return lambda path: closed.add(str(path))


def test_all_folders_without_read_permission_are_reported_together(
    tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    root = pictures(tmp_path, "cat", "dog", "owl")
    locked(root / "owl")
    locked(root / "cat")
    assert "2 files or folders" in refusal(root)
    assert "cannot be read (permission denied): cat, owl" in refusal(root)


def test_all_files_without_read_permission_are_reported_together(
    tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    root = pictures(tmp_path, "cat", "dog")
    for file in (root / "cat/0.png", root / "dog/1.png", picture(root / "dog/no suffix")):
        locked(file)
    words = "3 images cannot be read: permission denied; make it readable for this user: cat/0.png, dog/1.png"
    assert words in refusal(root)
    assert "remove or replace" not in refusal(root)


def test_predict_reports_a_folder_without_read_permission_by_name(
    tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    root = pictures(tmp_path, "cat", "dog")
    locked(root / "dog")
    images = find_images([root])
    assert [file.name for file in images.files] == ["cat/0.png", "cat/1.png"]
    assert images.unread == ["1 file left out (permission denied): dog"]


# --- broken images ---


def test_all_broken_images_of_all_splits_are_reported_together_by_cause(tmp_path: Path) -> None:
    root = tmp_path / "in"
    pictures(root / "train", "cat", "dog", count=15)
    pictures(root / "test", "cat", "dog")
    for n in range(12):
        (root / f"train/cat/{n}.png").write_bytes(b"")
    (root / "test/dog/0.png").write_bytes(b"no image")
    whole = picture(root / "train/dog/0.jpg", "jpeg").read_bytes()
    (root / "train/dog/0.jpg").write_bytes(whole[:-40])
    empty, cut, text = refusal(root).split("\n")
    assert empty.startswith("data.path: 12 images cannot be read: the file is empty; remove or replace it: train/cat/0")
    assert empty.endswith(" and 2 more")
    assert cut == "data.path: 1 image cannot be read: it is truncated; remove or replace it: train/dog/0.jpg"
    assert "it is not an image that Pillow can read" in text
    assert text.endswith(": test/dog/0.png")


def test_an_image_with_too_many_pixels_is_reported_as_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pictures(tmp_path, "cat", "dog")
    Image.new("1", (15, 15)).save(root / "cat/big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "it has more than the allowed 200 pixels; make it smaller: cat/big.png" in refusal(root)


def test_an_image_with_many_pixels_is_read_without_a_warning_from_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    root = pictures(tmp_path, "cat", "dog")
    Image.new("1", (15, 15)).save(root / "cat/big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert per_class(read(root)) == {"cat": 3, "dog": 2}
    assert not list(recwarn)


def test_an_image_with_damaged_exif_data_can_be_read(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffgarbage")
    assert ImageFile(tmp_path, "x.jpg").pixels((3, 4, 4)).shape == (3, 4, 4)


def test_the_first_frame_of_a_file_is_read_and_a_warning_names_files_with_several_frames(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog")
    frames = [Image.new("RGB", (4, 4), color) for color in ("white", "red", "blue")]
    for name in ("a.gif", "b.tif", "c.webp", "d.png"):
        frames[0].save(root / "cat" / name, save_all=True, append_images=frames[1:])
        assert ImageFile(root, f"cat/{name}").pixels((3, 4, 4)).min() == 255
    assert "4 files with several frames; only the first is read: cat/a.gif, cat/b.tif" in warnings_of(root)


# --- pixel values ---


def test_floats_from_0_to_1_are_scaled_to_bytes_and_other_floats_are_rejected(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)).save(tmp_path / "x.tif")
    assert ImageFile(tmp_path, "x.tif").pixels((1, 1, 3)).tolist() == [[[0, 128, 255]]]
    for values in ([[0, 127.5, 255]], [[-1, 0, 1]], [[0, np.nan, 1]]):
        Image.fromarray(np.array(values, dtype=np.float32)).save(tmp_path / "x.tif")
        with pytest.raises(DataError, match=r"x\.tif cannot be read: some of its floats are outside 0 to 1"):
            ImageFile(tmp_path, "x.tif").pixels((1, 1, 3))


def test_32_bit_values_up_to_65535_are_scaled_like_16_bit_values_and_larger_values_are_rejected(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535]], dtype=np.int32)).save(tmp_path / "x.tif")
    assert ImageFile(tmp_path, "x.tif").pixels((1, 1, 3)).tolist() == [[[0, 1, 255]]]
    Image.fromarray(np.array([[0, 70_000, 1 << 30]], dtype=np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="some of its integer values are outside 0 to 65535"):
        ImageFile(tmp_path, "x.tif").pixels((1, 1, 3))


def test_32_bit_values_up_to_255_are_used_unchanged(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 128, 255]], dtype=np.int32)).save(tmp_path / "x.tif")
    assert ImageFile(tmp_path, "x.tif").pixels((1, 1, 3)).tolist() == [[[0, 128, 255]]]


def test_a_warning_names_16_bit_files_that_contain_only_8_bit_values(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog")
    for name in ("cat/dim.png", "dog/dim.tif"):
        Image.fromarray(RNG.integers(0, 256, (4, 4)).astype(np.uint16)).save(root / name)
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(root / "dog/night.png")
    Image.fromarray(np.full((4, 4), 300, dtype=np.uint16)).save(root / "dog/evening.png")
    rule = "16 bits, but no value above 255, which is nearly black on the 16-bit scale"
    assert f"2 files with {rule}: cat/dim.png, dog/dim" in warnings_of(root)


def png(file: Path, bits: int, color: int, transparent: bytes, row: bytes) -> Path:
    """Writes a PNG of 8x1 pixels of one color that is declared transparent."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 8, 1, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"\0" + row))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return file


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("bits", "color", "transparent", "row"),
    [
        (16, 0, b"\0\0", b"\0\0" * 8),
        (16, 0, b"\x12\x34", b"\x12\x34" * 8),
        (8, 0, b"\0\x07", b"\x07" * 8),
        (4, 0, b"\0\x03", b"\x33" * 4),
        (2, 0, b"\0\x01", b"\x55" * 2),
        (1, 0, b"\0\0", b"\0"),
        (16, 2, b"\x12\x34" * 3, b"\x12\x34" * 24),
        (8, 2, b"\0\x07" * 3, b"\x07" * 24),
    ],
    ids=["gray 16 black", "gray 16", "gray 8", "gray 4", "gray 2", "gray 1", "color 16", "color 8"],
)
def test_the_transparent_color_of_a_png_becomes_white_at_any_bit_depth(
    tmp_path: Path, channels: int, bits: int, color: int, transparent: bytes, row: bytes
) -> None:
    png(tmp_path / "x.png", bits, color, transparent, row)
    assert ImageFile(tmp_path, "x.png").pixels((channels, 1, 8)).min() == 255


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_gray_and_palette_images_with_an_alpha_channel_are_drawn_on_white(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        noise = Image.fromarray(RNG.integers(0, 200, (4, 4, 3), dtype=np.uint8))
        noise.quantize(4).save(tmp_path / "x.png", transparency=bytes(4))
    else:
        Image.new(mode, (4, 4), 0).save(tmp_path / "x.png")
    assert ImageFile(tmp_path, "x.png").pixels((3, 4, 4)).min() == 255


# --- zip files ---


def zip_of(root: Path, rename: Callable[[str], str] = str, **options: int) -> Path:
    file = root.with_suffix(".zip")
    with zipfile.ZipFile(file, "w", **options) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.writestr(rename(path.relative_to(root).as_posix()), path.read_bytes())
    return file


class Unmarked(zipfile.ZipInfo):
    """A zip entry with a name in the given encoding, without the UTF-8 flag."""

    encoding = "cp932"

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's own name
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


def unmarked_zip(root: Path, encoding: str) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in sorted(root.rglob("*.png")):
            entry = Unmarked(path.relative_to(root).as_posix())
            entry.encoding = encoding
            archive.writestr(entry, path.read_bytes())
    return root.with_suffix(".zip")


@pytest.mark.parametrize("prefix", ["", "pets\\", "C:\\data\\pets\\", "/pets/", "./pets/", "a/b/c/"])
def test_zip_entries_whose_names_contain_backslashes_or_drives_or_leading_folders_are_read(
    tmp_path: Path, prefix: str
) -> None:
    root = pictures(tmp_path / "in", "cat", "dog")
    slash = "\\" if "\\" in prefix or not prefix else "/"
    source = read(zip_of(root, lambda name: prefix + name.replace("/", slash)))
    assert per_class(source) == {"cat": 2, "dog": 2}


def test_a_warning_names_a_zip_entry_whose_path_leads_outside_the_zip_file(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "cat", "dog")
    file = zip_of(root)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("../owl/1.png", b"x")
    assert "1 file left out (a path outside of the zip file): ../owl/1.png" in warnings_of(file)


def test_a_warning_names_a_link_in_a_zip_file(tmp_path: Path) -> None:
    file = zip_of(pictures(tmp_path / "in", "cat", "dog"))
    with zipfile.ZipFile(file, "a") as archive:
        link = zipfile.ZipInfo("owl")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../else/owl")
    assert "1 file left out (a symbolic link in a zip file, which is not followed): owl" in warnings_of(file)


def test_an_empty_class_folder_in_a_zip_file_is_rejected(tmp_path: Path) -> None:
    file = zip_of(pictures(tmp_path / "in", "cat", "dog"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("owl/", b"")
    assert "no image in class folder owl (it is empty)" in refusal(file)


def test_the_later_of_two_entries_with_the_same_name_is_read_and_the_name_is_reported(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "cat", "dog")
    file = zip_of(root)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("cat/0.png", (root / "dog/0.png").read_bytes())
    source = read(file)
    assert per_class(source) == {"cat": 2, "dog": 2}
    assert (source.pool.images[0] == source.pool.images[2]).all()
    assert "1 file left out (replaced by a later entry with the same name): cat/0.png" in str(source.warnings[0])


def marked(file: Path, local: int, central: int, change: Callable[[bytearray, int], None]) -> Path:
    """Changes the byte at the given offsets of every header of a zip file."""
    raw = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = 0
        while (at := raw.find(mark, at)) != -1:
            change(raw, at + offset)
            at += 4
    file.write_bytes(bytes(raw))
    return file


def test_an_encrypted_zip_entry_is_reported_as_encrypted(tmp_path: Path) -> None:
    def encrypt(raw: bytearray, at: int) -> None:
        raw[at] |= 1

    words = refusal(marked(zip_of(pictures(tmp_path / "in", "cat", "dog")), 6, 8, encrypt))
    assert words == (
        "data.path: 4 images cannot be read: it is encrypted with a password; extract the archive and give the folder: "
        "cat/0.png, cat/1.png, dog/0.png, dog/1.png"
    )


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (98, "PPMd"), (77, "method 77")])
def test_an_unsupported_compression_is_reported_by_name(tmp_path: Path, method: int, name: str) -> None:
    def compress(raw: bytearray, at: int) -> None:
        raw[at] = method

    words = refusal(marked(zip_of(pictures(tmp_path / "in", "cat", "dog")), 8, 10, compress))
    assert f"4 images cannot be read: it is compressed with {name}, which Python cannot read" in words
    assert "replace it" not in words


def test_a_damaged_zip_entry_is_reported_as_damaged(tmp_path: Path) -> None:
    file = zip_of(pictures(tmp_path / "in", "cat", "dog"))
    raw = bytearray(file.read_bytes())
    raw[raw.find(b"IDAT") + 6] ^= 255
    file.write_bytes(bytes(raw))
    words = "1 image cannot be read: its entry in the zip file is damaged (Bad CRC-32); replace it: cat/0.png"
    assert words in refusal(file)


@pytest.mark.parametrize("name", ["in.tar.gz", "in.7z", "in.zip"])
def test_a_file_that_is_not_a_zip_file_is_rejected_with_the_cause(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b something else")
    words = refusal(tmp_path / name)
    assert words.startswith("data.path: ")
    assert f"{name} is neither a folder nor a readable zip file (File is not a zip file)" in words
    assert words.endswith("end may be missing" if name == "in.zip" else "extract the archive and give the folder")


@pytest.mark.parametrize("name", ["cat", "cat/"])
def test_a_zip_entry_that_has_content_but_a_folder_name_is_skipped_with_a_warning(tmp_path: Path, name: str) -> None:
    file = zip_of(pictures(tmp_path / "in", "cat", "dog"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, b"an image, perhaps")
    assert "1 file left out (a file with the same name as a folder): cat" in warnings_of(file)


def test_an_empty_zip_entry_with_a_folder_name_is_read_as_a_folder(tmp_path: Path) -> None:
    file = zip_of(pictures(tmp_path / "in", "cat", "dog"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("cat", b"")
    assert warnings_of(file) == ""


def test_the_message_about_one_class_uses_the_singular(tmp_path: Path) -> None:
    assert "contains images of 1 class; at least two" in refusal(pictures(tmp_path / "in", "cat"))


@pytest.mark.parametrize("encoding", ["cp932", "gbk", "cp1251", "euc-kr"])
def test_entry_names_in_an_unknown_encoding_cause_a_warning(tmp_path: Path, encoding: str) -> None:
    names = {"cp932": "猫", "gbk": "狗", "cp1251": "кот", "euc-kr": "고양이"}
    root = pictures(tmp_path / "in", names[encoding], "dog")
    words = warnings_of(unmarked_zip(root, encoding))
    assert "names of 2 zip entries have an unknown encoding and are read as cp437" in words
    assert "UTF-8" in words


def test_entry_names_in_utf_8_without_the_utf_8_flag_are_read_as_utf_8(tmp_path: Path) -> None:
    source = read(unmarked_zip(pictures(tmp_path / "in", "猫", "кот"), "utf-8"))
    assert (source.class_names, source.warnings) == (("кот", "猫"), ())


def test_the_unicode_name_stored_by_info_zip_is_used(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "猫", "犬")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            name = path.relative_to(root).as_posix()
            entry = Unmarked(name)
            content = b"\1" + struct.pack("<I", zlib.crc32(name.encode("cp932"))) + name.encode()
            entry.extra = struct.pack("<HH", 0x7075, len(content)) + content
            archive.writestr(entry, path.read_bytes())
    source = read(tmp_path / "x.zip")
    assert (source.class_names, source.warnings) == (("犬", "猫"), ())


# --- names ---


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems only")
def test_a_class_name_that_is_not_utf_8_is_rejected_but_such_a_file_name_is_accepted(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog", "owl")
    os.rename(root / "cat/0.png", os.fsencode(root / "cat") + b"/caf\xe9.png")
    assert per_class(read(root)) == {"cat": 2, "dog": 2, "owl": 2}
    Path(os.fsdecode(os.fsencode(root / "dog") + b"/\xe9.txt")).write_text("no image")
    assert r"dog/\xe9.txt" in warnings_of(root)
    os.rename(root / "owl", os.fsencode(root) + b"/caf\xe9")
    assert refusal(root) == r"data.path: the name of class folder caf\xe9 is not UTF-8; rename it"


def test_a_name_is_printed_on_one_line_and_cannot_control_the_terminal(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog")
    (root / "cat/two\nlines\x1b[31m.txt").write_text("no image")
    assert r"cat/two\nlines\x1b[31m.txt" in warnings_of(root)


def test_composed_and_decomposed_unicode_names_denote_the_same_class(tmp_path: Path) -> None:
    pictures(tmp_path / "train", "caf\u00e9", "dog")
    pictures(tmp_path / "test", "cafe\u0301", "dog")
    source = read(tmp_path)
    assert source.class_names == ("caf\u00e9", "dog")
    assert source.test is not None
    assert source.test.labels.tolist() == [0, 0, 1, 1]


def test_two_folders_with_the_same_name_are_read_as_one_class_and_reported(tmp_path: Path) -> None:
    root = pictures(tmp_path, "caf\u00e9", "cafe\u0301", "dog")
    assert per_class(read(root)) == {"caf\u00e9": 4, "dog": 2}
    assert "2 folders have the class name 'caf\u00e9'" in warnings_of(root)


def test_a_class_that_exists_only_in_another_split_is_rejected_with_the_closest_name(tmp_path: Path) -> None:
    pictures(tmp_path / "train", "cat", "dog")
    pictures(tmp_path / "val", "Cat", "dog")
    assert "1 class in val/ missing from train/: Cat; did you mean cat?" in refusal(tmp_path)


# --- prediction reads the same files ---


def test_prediction_and_training_read_the_same_files(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "cat", "dog")
    picture(root / "dog/a.tif", "tiff")
    picture(root / "dog/deep/er/no suffix", "png")
    (root / "dog/readme.txt").write_text("hello")
    (root / "cat/gone.png").symlink_to("nothing")
    (root / "loop").symlink_to("..")
    images = find_images([root])
    assert [file.name for file in images.files] == [file.name for file in find_files(root).files]
    assert len(images.files) == 6
    assert images.left_out == ["1 file left out (not an image that Pillow can read): dog/readme.txt"]
    assert images.unread == [
        "1 file left out (a broken link): cat/gone.png",
        "1 file left out (a link to a folder that contains it): loop",
    ]


def test_an_invalid_path_raises_an_error_class_defined_in_this_project(tmp_path: Path) -> None:
    for path, words in (
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
        ("~nobody-of-this-name/x", "does not exist|cannot be read"),
    ):
        with pytest.raises(DataError, match=words):
            ImageFolder(path=path)()
    with pytest.raises(DataError, match="file name too long"):
        find_images(["x" * 300])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n"


@pytest.mark.parametrize(("content", "what"), [(POINTER, "a Git LFS pointer"), (PAGE, "a web page")])
def test_a_placeholder_for_an_image_or_archive_is_reported_as_a_placeholder(
    tmp_path: Path, content: bytes, what: str
) -> None:
    root = pictures(tmp_path / "in", "cat", "dog")
    (root / "cat" / "0.jpg").write_bytes(content)
    assert f"1 image cannot be read: it is {what}, not the file itself;" in refusal(root)
    (tmp_path / "a.zip").write_bytes(content)
    assert f"a.zip is {what}, not the file itself" in refusal(tmp_path / "a.zip")


def test_a_folder_with_very_few_images_is_rejected_before_it_is_read_completely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensdistill.data.walk._MOST", 30)
    root = pictures(tmp_path / "in", "cat", "dog")
    for n in range(20):
        (root / "cat" / f"{n}.txt").write_text("not an image")
    assert "cat/0.txt" in warnings_of(root)
    for n in range(20, 40):
        (root / "cat" / f"{n}.txt").write_text("not an image")
    words = refusal(root)
    assert "contains 2 images and more than 30 other files; give a folder that contains only the images" in words
    with pytest.raises(DataError, match="more than 30 other files"):
        find_images([root])


def test_endlessly_nested_folders_are_skipped_with_a_warning(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "cat", "dog")
    deep = root / "cat"
    for _ in range(400):
        deep /= "x"
        deep.mkdir()
    assert "1 file left out (nested in more than 100 folders): cat/x/" in warnings_of(root)


def test_an_empty_file_without_an_image_suffix_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "in", "cat", "dog")
    (root / "cat" / "kmsg").touch()
    opened = ImageFile.open
    monkeypatch.setattr(ImageFile, "open", lambda file: opened(file) if file.name != "cat/kmsg" else 1 / 0)
    assert "cat/kmsg" in warnings_of(root)
