"""One image file and its pixels; training and prediction read them by these very lines."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import ImageFile as ImageFile_

from ensdistill.errors import DataError
from ensdistill.runtime.files import stand_in
from ensdistill.runtime.lazy import np
from ensdistill.runtime.text import storable

MODES = {1: "L", 3: "RGB"}  # what Pillow calls images of so many channels; its L is the luma of ITU-R BT.601

# Files with these suffixes must be images. Others may be: their content decides.
SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".webp", ".avif", ".gif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"),
}
# Formats that Pillow recognizes by their first bytes, and may hence have any suffix or none.
_MARKED = {"PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "AVIF", "JPEG2000", "QOI", "PSD", "ICO", "SGI"}
# Formats that Pillow recognizes but cannot read by itself; EPS is a program, which Ghostscript would run.
_UNREAD = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_SEVERAL_FRAMES = {"GIF", "PNG", "TIFF", "WEBP", "AVIF"}  # of an MPO, the others are previews
_DEPTHS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies the gray values of a PNG by
_METHODS = {9: "Deflate64", 6: "Implode", 1: "Shrink", 93: "Zstandard", 95: "XZ", 98: "PPMd"}

FRAMES = "several frames, of which the first is read"
SHALLOW = "16 bits but values up to 255 only, which is black on the scale of 16 bits"


class ImageError(DataError):
    """One image that cannot be read.

    Attributes:
        name: The file's path below the folder or zip file.
        cause: Why, in the same words for all files with the same cause.
    """

    def __init__(self, place: str, name: str, cause: str) -> None:
        self.place, self.name, self.cause = place, name, cause
        super().__init__(f"{place} cannot be read: {cause}")

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        return type(self), (self.place, self.name, self.cause)


@dataclass(frozen=True)
class ImageFile:
    """One image, not read yet.

    Attributes:
        root: The folder or zip file that holds it.
        name: Its path in there, with `/` between the parts.
        archive: The opened zip file, or None.
        entry: Its entry in the zip file, whose own name may be written otherwise.
    """

    root: Path
    name: str
    archive: zipfile.ZipFile | None = None
    entry: zipfile.ZipInfo | None = None

    @property
    def place(self) -> str:
        """The whole path as UTF-8 can hold it."""
        return storable(str(self.root / self.name))

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders below the root, and its own name."""
        return PurePosixPath(self.name).parts

    def pixels(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Returns the image as uint8 of this shape.

        The image is turned as its EXIF data require, what is transparent lies on white, and 16 bits of gray become the
        nearest 8. Pillow's bilinear interpolation (as wide as the scale) resizes each side separately.

        Args:
            shape: (C,H,W), C one or three.

        Raises:
            ImageError: The file is no readable image.
        """
        return self.read(shape).pixels

    def read(self, shape: tuple[int, int, int]) -> Read:
        """Returns the same pixels with a remark. Raises ImageError with the cause if the image cannot be read."""
        try:
            with _quiet():
                with self.open() as stream:
                    raw = stream.read()
                return _decoded(raw, shape)
        except Exception as error:  # decoders raise a dozen different exceptions for a damaged file
            raise ImageError(self.place, self.name, self._cause(error)) from error

    def open(self) -> IO[bytes]:
        """The opened file."""
        if self.archive is None:
            return (self.root / self.name).open("rb")
        return self.archive.open(self.entry or self.name)

    def _cause(self, error: Exception) -> str:
        if self.entry is not None and self.entry.flag_bits & 1:
            return "it is encrypted with a password; extract the archive and give the folder"
        if self.entry is not None and isinstance(error, NotImplementedError):
            method = _METHODS.get(self.entry.compress_type, f"method {self.entry.compress_type}")
            return f"it is compressed by {method}, which Python does not read; extract the archive and give the folder"
        return _cause(error)


@dataclass(frozen=True)
class Read:
    """The pixels of a file, uint8 (C,H,W), and what is remarkable about the file."""

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()


def open_image(stream: IO[bytes], name: str | None = None) -> Image.Image:
    """Returns the image of a file, whose pixels are not read yet.

    Args:
        stream: The file.
        name: If given, only formats that have a signature, or the suffix of this name, are considered: some others are
            recognized so weakly that a text could pass for one.

    Raises:
        UnidentifiedImageError: Pillow does not read this format.
    """
    formats = _readable()
    if name is not None:
        own = Image.registered_extensions().get(PurePosixPath(name).suffix.lower())
        formats = [known for known in formats if known in _MARKED or known == own]
    return Image.open(stream, formats=formats)


def is_image(stream: IO[bytes], name: str) -> bool:
    """Whether Pillow recognizes the file. Errors of the file system and of zip files pass through."""
    try:
        with _quiet():
            open_image(stream, name)
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError, IndexError, KeyError):
        return False
    except Image.DecompressionBombError:
        return True
    return True


def _decoded(raw: bytes, shape: tuple[int, int, int]) -> Read:
    if not raw:
        raise _RefusedError("the file is empty; remove or replace it")
    if what := stand_in(raw[:200]):
        raise _RefusedError(f"it is {what}")
    image = open_image(io.BytesIO(raw))
    depth = _depth(image)
    remarks = [FRAMES] if _has_frames(image) else []
    image.load()
    if image.mode.startswith("I;16") and 0 < np.asarray(image).max() <= 255:
        remarks.append(SHALLOW)
    return Read(_fitted(_plain(_upright(image), depth), shape), tuple(remarks))


def _fitted(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """The pixels of an opaque image as uint8 of this shape (C,H,W)."""
    channels, height, width = shape
    image = image.convert(MODES[channels])
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


@cache
def _readable() -> list[str]:
    Image.init()
    return [known for known in Image.ID if known not in _UNREAD]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings: they name no file. A file is read, or refused with the cause."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _has_frames(image: Image.Image) -> bool:
    return image.format in _SEVERAL_FRAMES and bool(getattr(image, "is_animated", False))


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF data require; damaged EXIF data turn nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are sound
        return image


def _depth(image: Image.Image) -> object:
    """How Pillow decodes the pixels, for example `L;4`; known until they are read."""
    return image.tile[0].args if isinstance(image, ImageFile_.ImageFile) and image.tile else None


def _plain(image: Image.Image, depth: object) -> Image.Image:
    """Opaque, with 8 bits a channel: Pillow's own conversions ignore transparency and clip more bits."""
    if image.mode == "F":
        return _from_floats(np.asarray(image))
    if image.mode.startswith("I"):
        return _from_integers(np.asarray(image), image.info.get("transparency"))
    if image.has_transparency_data:
        return _on_white(image, depth)
    return image


def _from_floats(pixels: np.ndarray) -> Image.Image:
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # so put, NaN is refused too
        raise _RefusedError("its floats are not all from 0 to 1, so that their scale is unknown; save it with 8 bits")
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def _from_integers(pixels: np.ndarray, transparent: object) -> Image.Image:
    """On the scale of 16 bits; 32 bits that use the lowest 8 only are taken as these 8."""
    if pixels.min() < 0 or pixels.max() > 65535:
        raise _RefusedError("its whole numbers are not all from 0 to 65535; save it with 8 or 16 bits")
    shallow = pixels.dtype.itemsize == 4 and pixels.max() <= 255
    gray = (pixels / (1 if shallow else 257)).round().astype(np.uint8)
    if isinstance(transparent, int):
        gray[pixels == transparent] = 255
    return Image.fromarray(gray)


def _on_white(image: Image.Image, depth: object) -> Image.Image:
    """Pillow scales pixels of other depths to 8 bits, but not the transparent color of a PNG."""
    key = image.info.get("transparency")
    if isinstance(key, int) and depth in _DEPTHS:
        image.info["transparency"] = key * _DEPTHS[str(depth)]
    if isinstance(key, tuple) and depth == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


class _RefusedError(ValueError):
    """A sound file that is no usable image; the message is the cause."""


def _cause(error: Exception) -> str:
    """Why a file cannot be read, in the same words for each file with the same cause."""
    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, PermissionError):
        return "permission denied; make it readable for this user"
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"it has more than {most:,} pixels, the most that are read; make it smaller"
    if isinstance(error, MemoryError):
        return "it does not fit into memory; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image that Pillow can read; remove or replace it"
    if isinstance(error, (zipfile.BadZipFile, zlib.error, EOFError)):
        detail = re.split(" for file | in directory ", _first_line(error))[0]  # without the name, which stands before
        return f"it is damaged inside the zip file ({detail}); replace it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if "truncated" in str(error).lower():
        return "it is truncated; remove or replace it"
    return f"it is damaged ({_first_line(error)}); remove or replace it"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
