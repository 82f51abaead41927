"""Names in zip files, whose encoding is often not stated."""

import struct
import zipfile
import zlib

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # an extra field of Info-ZIP: version, CRC-32 of the plain name, the name in UTF-8


def readable_name(entry: zipfile.ZipInfo) -> tuple[str, bool]:
    """Returns the name of an entry, and whether its encoding is known.

    A name is UTF-8 if the entry is marked so, has Info-ZIP's field of a Unicode name, or happens to be valid UTF-8, as
    macOS and old versions of Info-ZIP wrote it without a mark. Any other name is read as cp437, as the zip
    specification requires; most writers used the code page of their country.
    """
    name = entry.orig_filename.partition("\0")[0]
    if entry.flag_bits & _UTF8_FLAG or name.isascii():
        return name, True
    try:
        raw = name.encode("cp437")
    except UnicodeEncodeError:  # zipfile has read the field of the Unicode name
        return name, True
    if (unicode_name := _unicode_path(entry.extra, raw)) is not None:
        return unicode_name, True
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return name, False


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in Info-ZIP's extra field, if there is one and it belongs to this name."""
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
