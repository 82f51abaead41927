"""The pixels of an image file equal the displayed image for every file format."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensdistill.data.image_files import ImageFile
from ensdistill.data.walk import find_files
from ensdistill.errors import DataError


def read(tmp_path: Path, image: Image.Image, suffix: str = "png", channels: int = 3, **options: object) -> np.ndarray:
    """Returns the pixels read from an image of 2x2 pixels."""
    file = io.BytesIO()
    image.save(file, {"jpg": "jpeg"}.get(suffix, suffix), **options)
    (tmp_path / f"one.{suffix}").write_bytes(file.getvalue())
    return ImageFile(tmp_path, f"one.{suffix}").pixels((channels, *image.size[::-1]))


def rgb(*pixels: tuple[int, int, int]) -> Image.Image:
    """Returns an image with one row of pixels."""
    return Image.fromarray(np.array([pixels], dtype=np.uint8))


def test_a_color_image_is_read_with_separate_channels(tmp_path: Path) -> None:
    pixels = read(tmp_path, rgb((1, 2, 3), (4, 5, 6)))
    assert pixels.tolist() == [[[1, 4]], [[2, 5]], [[3, 6]]]


def test_a_color_image_is_converted_to_gray_by_its_luma(tmp_path: Path) -> None:
    pixels = read(tmp_path, rgb((255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)), channels=1)
    assert pixels.tolist() == [[[round(0.299 * 255), round(0.587 * 255), round(0.114 * 255), 9]]]


def test_a_gray_image_becomes_three_equal_channels(tmp_path: Path) -> None:
    assert read(tmp_path, Image.new("L", (2, 2), 77)).tolist() == [[[77, 77], [77, 77]]] * 3


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(10, 20, 30, 0), (10, 20, 30, 255), (0, 0, 0, 128)]):
        image.putpixel((x, 0), pixel)
    assert read(tmp_path, image)[:, 0].T.tolist() == [[255, 255, 255], [10, 20, 30], [127, 127, 127]]


def test_a_transparent_palette_color_becomes_white(tmp_path: Path) -> None:
    image = rgb((200, 0, 0), (0, 0, 200)).quantize(2)
    transparent = image.getpixel((0, 0))
    pixels = read(tmp_path, image, transparency=transparent)
    assert pixels[:, 0].T.tolist() == [[255, 255, 255], [0, 0, 200]]


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_gray_values_are_scaled_and_not_clipped(tmp_path: Path, channels: int) -> None:
    image = Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16))
    assert read(tmp_path, image, channels=channels).tolist() == [[[0, 1, 128, 255]]] * channels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_according_to_their_exif_data(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((8, 8, 3), dtype=np.uint8)
    upright[:4, :4] = 255
    turns = {1: [], 2: [1], 3: [0, 1], 4: [0], 5: ["t"], 6: ["t", 0], 7: ["t", 0, 1], 8: ["t", 1]}
    stored = upright
    for turn in turns[orientation]:  # EXIF states where the first row and column are displayed
        stored = stored.transpose(1, 0, 2) if turn == "t" else np.flip(stored, turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), "jpg", exif=exif, quality=95)
    assert np.abs(pixels.astype(int).transpose(1, 2, 0) - upright).max() < 10


def test_cmyk_is_converted_to_rgb(tmp_path: Path) -> None:
    image = Image.merge("CMYK", [Image.new("L", (8, 8), ink) for ink in (0, 255, 255, 0)])
    assert np.abs(read(tmp_path, image, "jpg", quality=95).astype(int)[:, 4, 4] - [255, 0, 0]).max() < 10


def test_height_and_width_are_resized_separately(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat([[0] * 8, [200] * 8], 4, 0).astype(np.uint8))
    image.save(tmp_path / "one.png")
    pixels = ImageFile(tmp_path, "one.png").pixels((1, 2, 4))
    assert pixels.shape == (1, 2, 4)
    assert (np.ptp(pixels, axis=2) == 0).all()
    assert pixels[0, 0, 0] < 40 < 160 < pixels[0, 1, 0]


def test_a_file_that_is_not_an_image_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_text("no")
    with pytest.raises(DataError, match=r"one\.png cannot be read: it is not an image"):
        ImageFile(tmp_path, "one.png").pixels((3, 2, 2))


def test_images_in_folders_of_any_depth_are_listed_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a.png", "b/c/3.webp", ".hidden/4.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in find_files(tmp_path).files] == ["a.png", "b/1.jpg", "b/2.PNG", "b/c/3.webp"]


def test_reading_a_small_file_allocates_little_memory(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    tracemalloc.start()
    try:
        ImageFile(tmp_path, "a.png").read((1, 8, 8))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
