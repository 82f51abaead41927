"""Reads image files. Training and prediction use the same code, so that both receive identical pixels."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import ImageFile as ImageFile_

from ensdistill.errors import DataError
from ensdistill.runtime.files import stand_in
from ensdistill.runtime.lazy import np
from ensdistill.runtime.text import storable

Resize = Literal["center_crop", "squash", "pad"]

MODES = {1: "L", 3: "RGB"}  # Pillow modes, keyed by number of channels; L is the ITU-R BT.601 luma

# Files with these suffixes must be images. Other files are identified by their content.
SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".webp", ".avif", ".gif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"),
}
# Formats that Pillow recognizes by their first bytes; files in these formats may have any suffix or none.
_MARKED = {"PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "AVIF", "JPEG2000", "QOI", "PSD", "ICO", "SGI"}
# Formats that Pillow recognizes but cannot decode without other software. For EPS, this is Ghostscript, which executes
# the file as a program.
_UNREAD = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_SEVERAL_FRAMES = {"GIF", "PNG", "TIFF", "WEBP", "AVIF"}  # not MPO, because its other frames are previews
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_DEPTHS = {"L;2": 85, "L;4": 17}  # factor by which Pillow multiplies the gray values of a PNG
_METHODS = {9: "Deflate64", 6: "Implode", 1: "Shrink", 93: "Zstandard", 95: "XZ", 98: "PPMd"}

# Maximum file size in bytes. It limits memory use, because a zip entry can expand to 1000 times its compressed size.
LARGEST_FILE = 1 << 28

FRAMES = "several frames; only the first is read"
SHALLOW = "16 bits, but no value above 255, which is nearly black on the 16-bit scale"


class ImageError(DataError):
    """Error raised for an image that cannot be read.

    Attributes:
        place: Full path of the file.
        name: Path of the file, relative to the folder or zip file.
        cause: Cause of the error; the string is identical for all files with the same cause.
    """

    def __init__(self, place: str, name: str, cause: str) -> None:
        self.place, self.name, self.cause = place, name, cause
        super().__init__(f"{place} cannot be read: {cause}")

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        return type(self), (self.place, self.name, self.cause)


@dataclass(frozen=True)
class ImageFile:
    """One image file that has not been read yet.

    Attributes:
        root: The folder or zip file that contains the image file.
        name: Path of the file relative to the root, with `/` as the separator.
        archive: The opened zip file, or None for a folder.
        entry: The entry in the zip file; its name can be encoded differently from `name`.
    """

    root: Path
    name: str
    archive: zipfile.ZipFile | None = None
    entry: zipfile.ZipInfo | None = None

    @property
    def place(self) -> str:
        """Full path, in a form that UTF-8 can encode."""
        return storable(str(self.root / self.name))

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Folders below the root, followed by the file name."""
        return PurePosixPath(self.name).parts

    @property
    def stamp(self) -> str:
        """Size in bytes and modification time in nanoseconds; for a zip file, size and checksum of the entry."""
        if self.entry is not None:
            return f"{self.entry.file_size} {self.entry.CRC}"
        try:
            status = (self.root / self.name).stat()
        except OSError as error:
            return f"{error.strerror}"  # the error is reported when the file is read
        return f"{status.st_size} {status.st_mtime_ns}"

    def sides(self) -> tuple[int, int]:
        """Returns the width and height without reading the pixels of the image; (0, 0) if the file is not readable."""
        try:
            with quiet(), self.open() as stream:
                return open_image(stream).size
        except Exception:  # the error is reported when the image is read
            return 0, 0

    def pixels(self, shape: tuple[int, int, int], resize: Resize = "center_crop") -> np.ndarray:
        """Returns the image as uint8 with the given shape; arguments and errors are the same as for `read`."""
        with quiet():
            return self.read(shape, resize).pixels

    def read(self, shape: tuple[int, int, int], resize: Resize = "center_crop") -> Read:
        """Returns the pixels of the image as uint8 with the given shape, and remarks about the file.

        The image is rotated as its EXIF data specify. Transparent pixels are drawn on white. 16-bit gray values are
        divided by 257 and rounded. Each side is resized separately, by Pillow's antialiased bilinear interpolation.
        Pillow's warnings are not suppressed, because suppression would affect other threads; see `quiet`.

        Args:
            shape: (C,H,W) with C = 1 or 3.
            resize: How an image with a different aspect ratio is fitted; see `fitted`.

        Raises:
            ImageError: The file is not a readable image; the message states the cause.
        """
        try:
            with self.open() as stream:
                raw = stream.read(self._most(stream) + 1)
            if len(raw) > LARGEST_FILE:
                raise _RefusedError(f"it is larger than {LARGEST_FILE >> 20} MiB, too large for an image; remove it")
            return _decoded(raw, shape, resize)
        except Exception as error:  # decoders raise a dozen different exceptions for a damaged file
            raise ImageError(self.place, self.name, self._cause(error)) from error

    def open(self) -> IO[bytes]:
        """Opens the file for reading."""
        if self.archive is None:
            return (self.root / self.name).open("rb")
        return self.archive.open(self.entry or self.name)

    def _most(self, stream: IO[bytes]) -> int:
        """Returns the number of bytes to read; Python allocates this memory for a file in a folder."""
        return LARGEST_FILE if self.archive else min(os.fstat(stream.fileno()).st_size, LARGEST_FILE)

    def _cause(self, error: Exception) -> str:
        if self.entry is not None and self.entry.flag_bits & 1:
            return "it is encrypted with a password; extract the archive and give the folder"
        if self.entry is not None and isinstance(error, NotImplementedError):
            method = _METHODS.get(self.entry.compress_type, f"method {self.entry.compress_type}")
            return f"it is compressed with {method}, which Python cannot read; extract the archive and give the folder"
        return _cause(error)


@dataclass(frozen=True)
class Read:
    """Result of reading an image file.

    Attributes:
        pixels: uint8 (C,H,W).
        remarks: Unusual properties of the file, for warnings.
    """

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()


def open_image(stream: IO[bytes], name: str | None = None) -> Image.Image:
    """Returns the image in a file as a Pillow image whose pixels have not been read yet.

    Args:
        stream: The file.
        name: Name of the file. If given, Pillow tries only the formats with a signature and the format that matches the
            suffix. For some of the other formats, Pillow's checks are so weak that they accept text files.

    Raises:
        UnidentifiedImageError: Pillow cannot read this format.
    """
    formats = _readable()
    if name is not None:
        own = Image.registered_extensions().get(PurePosixPath(name).suffix.lower())
        formats = [known for known in formats if known in _MARKED or known == own]
    return Image.open(stream, formats=formats)


def is_image(stream: IO[bytes], name: str) -> bool:
    """Returns whether Pillow recognizes a file as an image.

    Args:
        stream: The file. Exceptions from the file system and from zip files are not caught.
        name: Name of the file.
    """
    try:
        with quiet():
            open_image(stream, name)
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError, IndexError, KeyError):
        return False
    except Image.DecompressionBombError:
        return True
    return True


def read_bytes(load: Callable[[], bytes], shape: tuple[int, int, int], resize: Resize, name: str) -> Read:
    """Reads an image file whose content is in memory; otherwise the same as `ImageFile.read`.

    Args:
        load: Function that returns the content of the file.
        shape: (C,H,W) with C = 1 or 3.
        resize: How an image with a different aspect ratio is fitted; see `fitted`.
        name: Name of the image in messages.

    Raises:
        ImageError: The content is not a readable image; the message states the cause.
    """
    try:
        return _decoded(load(), shape, resize)
    except Exception as error:  # decoders raise a dozen different exceptions for a damaged file
        raise ImageError(name, name, _cause(error)) from error


def _decoded(raw: bytes, shape: tuple[int, int, int], resize: Resize) -> Read:
    if not raw:
        raise _RefusedError("the file is empty; remove or replace it")
    if what := stand_in(raw[:200]):
        raise _RefusedError(f"it is {what}")
    image = open_image(io.BytesIO(raw))
    remarks = [FRAMES] if _has_frames(image) else []
    read = read_image(image, shape, resize)
    return Read(read.pixels, (*remarks, *read.remarks))


def read_image(image: Image.Image, shape: tuple[int, int, int], resize: Resize) -> Read:
    """Returns the pixels of a Pillow image and remarks about the image, as `ImageFile.read` does for a file.

    Args:
        image: An image of any mode, opened from a file or already in memory.
        shape: (C,H,W) with C = 1 or 3.
        resize: How an image with a different aspect ratio is fitted; see `fitted`.

    Raises:
        ValueError: The scale of the values is unknown.
        Exception: The file is damaged; the type of the exception depends on the decoder.
    """
    depth = _depth(image)
    image.load()
    deep = image.mode.startswith("I;16") and 0 < np.asarray(image).max() <= 255
    return Read(fitted(_plain(_upright(image), depth), shape, resize), (SHALLOW,) if deep else ())


def fitted(image: Image.Image, shape: tuple[int, int, int], resize: Resize) -> np.ndarray:
    """Returns the pixels of an opaque image as uint8 with the given shape (C,H,W).

    Args:
        image: The image.
        shape: (C,H,W) with C = 1 or 3.
        resize: `center_crop` crops the longer side equally at both ends, `squash` changes the aspect ratio, and `pad`
            adds black at both ends of the shorter side.
    """
    channels, height, width = shape
    side = (width, height)
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    if image.size != side and resize == "squash":
        image = image.resize(side, Image.Resampling.BILINEAR)
    elif image.size != side:
        image = (ImageOps.fit if resize == "center_crop" else ImageOps.pad)(image, side, Image.Resampling.BILINEAR)
    planes = b"".join(image.tobytes("raw", band) for band in MODES[channels])  # faster than NumPy's transpose
    return np.frombuffer(planes, dtype=np.uint8).reshape(shape)


@cache
def _readable() -> list[str]:
    Image.init()
    return [known for known in Image.ID if known not in _UNREAD]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses Pillow's warnings inside the block, because they do not name the file; affects all threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _has_frames(image: Image.Image) -> bool:
    return image.format in _SEVERAL_FRAMES and bool(getattr(image, "is_animated", False))


def _upright(image: Image.Image) -> Image.Image:
    """Returns the image, rotated according to its EXIF orientation; damaged EXIF data are ignored."""
    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image  # exif_transpose also copies upright images
    except Exception:  # damaged EXIF data do not affect the pixels
        return image


def _depth(image: Image.Image) -> object:
    """Returns Pillow's raw mode for the pixels, for example `L;4`; it is available only until the pixels are read."""
    return image.tile[0].args if isinstance(image, ImageFile_.ImageFile) and image.tile else None


def _plain(image: Image.Image, depth: object) -> Image.Image:
    """Returns the image without transparency and with 8 bits per channel; Pillow would clip larger values."""
    if image.mode == "F":
        return _from_floats(np.asarray(image))
    if image.mode.startswith("I"):
        return _from_integers(np.asarray(image), image.info.get("transparency"))
    if image.has_transparency_data:
        return _on_white(image, depth)
    return image


def _from_floats(pixels: np.ndarray) -> Image.Image:
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # written as a negation, so that NaN is also rejected
        raise _RefusedError("some of its floats are outside 0 to 1, so their scale is unknown; save it with 8 bits")
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def _from_integers(pixels: np.ndarray, transparent: object) -> Image.Image:
    """Returns gray values scaled from 16 to 8 bits; 32-bit values are not scaled if none is above 255."""
    if pixels.min() < 0 or pixels.max() > 65535:
        raise _RefusedError("some of its integer values are outside 0 to 65535; save it with 8 or 16 bits")
    shallow = pixels.dtype.itemsize == 4 and pixels.max() <= 255
    gray = (pixels / (1 if shallow else 257)).round().astype(np.uint8)
    if isinstance(transparent, int):
        gray[pixels == transparent] = 255
    return Image.fromarray(gray)


def _on_white(image: Image.Image, depth: object) -> Image.Image:
    """Returns the image on a white background.

    Pillow converts the pixels of a PNG to 8 bits, but not its transparent color, which is therefore converted here.
    """
    key = image.info.get("transparency")
    if isinstance(key, int) and depth in _DEPTHS:
        image.info["transparency"] = key * _DEPTHS[str(depth)]
    if isinstance(key, tuple) and depth == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


class _RefusedError(ValueError):
    """Error raised for an intact file that is not a usable image; the message states the cause."""


def _cause(error: Exception) -> str:
    """Returns the reason why a file cannot be read; the message is identical for all files with the same cause."""
    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, PermissionError):
        return "permission denied; make it readable for this user"
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"it has more than the allowed {most:,} pixels; make it smaller"
    if isinstance(error, MemoryError):
        return "it does not fit into memory; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image that Pillow can read; remove or replace it"
    if isinstance(error, (zipfile.BadZipFile, zlib.error, EOFError)):
        detail = re.split(" for file | in directory ", _first_line(error))[0]  # the message already contains the name
        return f"its entry in the zip file is damaged ({detail}); replace it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if "truncated" in str(error).lower():
        return "it is truncated; remove or replace it"
    return f"it is damaged ({_first_line(error)}); remove or replace it"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
