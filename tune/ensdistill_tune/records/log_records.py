"""Records of an event log, as bytes: lines of JSON with a sequence number and a chained checksum.

    {"crc": "5f3a90c1", "seq": 12, "at": 1764460800.0, "event": "trial_started", ...}

The checksum is the CRC-32 of the rest of the line, with the checksum of the previous record as its initial value.
Chained checksums detect not only lines of invalid JSON, but also changed, missing, repeated and moved lines. Record 0
is the header, which contains the format and the product version.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_OPEN, _CLOSE = b'{"crc": "', b'", '
_START = len(_OPEN) + 8 + len(_CLOSE)  # number of bytes before the part of the line that the checksum covers


@dataclass(frozen=True)
class LogEnd:
    """End of an intact log: number and total size of its records, and checksum of the last record.

    Attributes:
        records: Number of records, including the header.
        size: Size of these records in bytes.
        crc: Checksum of the last record; 0 before the first record.
    """

    records: int = 0
    size: int = 0
    crc: int = 0

    def encode(self, content: dict[str, Any]) -> bytes:
        """Returns the line for the next record, including the newline; NaN and infinity raise ValueError."""
        body = json.dumps({"seq": self.records} | content, allow_nan=False).encode()[1:]
        return b"%s%08x%s%s\n" % (_OPEN, zlib.crc32(body, self.crc), _CLOSE, body)

    def after(self, line: bytes) -> "LogEnd | None":
        """Returns the end of the log after one more line; None if the line is not the next intact record.

        Args:
            line: The line, including the newline.
        """
        body = line[_START:-1]
        crc = zlib.crc32(body, self.crc)
        sound = line == b"%s%08x%s%s\n" % (_OPEN, crc, _CLOSE, body) and body.startswith(b'"seq": %d, ' % self.records)
        return LogEnd(self.records + 1, self.size + len(line), crc) if sound else None


@dataclass(frozen=True)
class ScannedLog:
    """Result of scanning a log.

    Attributes:
        lines: The intact records in order, header first, each including the newline.
        end: End of the intact records.
        incomplete: Size in bytes of an incomplete record that a crash left at the end.
        damaged: Whether the line after these records is complete but is not the expected record.
        rest: Number of remaining lines, including the damaged line; 0 if no line is damaged.
    """

    lines: tuple[bytes, ...]
    end: LogEnd
    incomplete: int = 0
    rest: int = 0

    @property
    def damaged(self) -> bool:
        """Whether the line after the intact records is complete but is not the expected record."""
        return self.rest > 0


def content_of(line: bytes) -> bytes:
    """Returns the content of an intact record as JSON, without checksum and sequence number."""
    body = line[_START:]
    return b"{" + body[body.index(b", ") + 2 :]


def scan(content: bytes) -> ScannedLog:
    """Checks the content of an event log and returns its intact records and what follows them."""
    end, lines = LogEnd(), list[bytes]()
    for line in _lines(content):
        following = end.after(line)
        if following is None:
            return _broken_at(content, tuple(lines), end)
        lines.append(line)
        end = following
    return ScannedLog(tuple(lines), end)


def _broken_at(content: bytes, lines: tuple[bytes, ...], end: LogEnd) -> ScannedLog:
    """Returns the scan of a log whose intact records are followed by an incomplete record or by damage."""
    rest = content[end.size :]
    # If replacing the last byte with a newline makes the line a valid record, only the newline is damaged.
    half = b"\n" not in rest and end.after(rest[:-1] + b"\n") is None
    if half:
        return ScannedLog(lines, end, incomplete=len(rest))
    return ScannedLog(lines, end, rest=rest.count(b"\n") + (not rest.endswith(b"\n")))


def _lines(content: bytes) -> Iterator[bytes]:
    """Yields lines including their newlines; the last line may lack one."""
    start = 0
    while start < len(content):
        stop = content.find(b"\n", start) + 1 or len(content)
        yield content[start:stop]
        start = stop
