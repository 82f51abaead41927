"""Decodes the names of zip entries, whose encoding is often not declared."""

import struct
import zipfile
import zlib

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field: version, CRC-32 of the original name, the name in UTF-8


def readable_name(entry: zipfile.ZipInfo) -> tuple[str, bool]:
    """Returns the name of an entry, and whether the encoding of the name is known.

    A name is read as UTF-8 if the entry has the UTF-8 flag or Info-ZIP's Unicode field. Without either, a name that is
    valid UTF-8 is also read as UTF-8, because macOS and old versions of Info-ZIP did not set the flag. Any other name
    is read as cp437, as the zip specification requires, although most programs use a local code page.

    Args:
        entry: The entry of a zip file.

    Returns:
        The name, and True if its encoding is known or False if the name was read as cp437.
    """
    name = entry.orig_filename.partition("\0")[0]
    if entry.flag_bits & _UTF8_FLAG or name.isascii():
        return name, True
    try:
        raw = name.encode("cp437")
    except UnicodeEncodeError:  # zipfile has already used the Unicode field
        return name, True
    if (unicode_name := _unicode_path(entry.extra, raw)) is not None:
        return unicode_name, True
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return name, False


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Returns the name in Info-ZIP's extra field; None if the field is missing or belongs to a different name."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind != _UNICODE_PATH or len(content) < 5:
            continue
        if struct.unpack("<I", content[1:5])[0] == zlib.crc32(raw):
            try:
                return content[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None
