"""The boundary of a command: what it prints is filtered, and every exception becomes one line and an exit code."""

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from ensdistill.entry import TRACEBACK, shadowing_files
from ensdistill.errors import ConfigError, DataError, EnsdistillError
from ensdistill.runtime.secrets import without_secrets


def run_command(work: Callable[[], int]) -> int:
    """Runs a command and returns its exit code.

    Our own errors become one line each on standard error; an exception of another library becomes one line with its
    cause. Nothing is printed that holds a password or a character that the stream cannot write.

    Args:
        work: The command, from the parsing of its arguments on; returns the exit code.

    Returns:
        The code of the command; 1 if a training failed or an error is unexpected, 2 for bad input or a module that
        cannot be imported, 130 if interrupted.
    """
    _ignore_sizes_that_are_no_numbers()
    with _streams():
        try:
            code = work()
            sys.stdout.flush()
            return code
        except (ConfigError, DataError) as error:
            _print_lines(str(error))
            return 2
        except EnsdistillError as error:
            _print_lines(str(error))
            return 1
        except BrokenPipeError:  # `... | head` has read enough
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            return _unexpected(error)


def cause_of(error: BaseException) -> str:
    """The cause of an exception in one line: for a file its name and the reason, else type and message."""
    cause = getattr(error, "cause", None)  # of Ray's errors, whose own text is a traceback
    if isinstance(cause, BaseException) and cause is not error:
        return cause_of(cause)
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return f"{' -> '.join(names)}{': ' if names else ''}{error.strerror}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = "" if not lines else lines[-1] if any("Traceback" in line for line in lines) else lines[0]
    return f"{type(error).__name__}: {told[:500]}" if told else type(error).__name__


def _ignore_sizes_that_are_no_numbers() -> None:
    """Rich takes every COLUMNS of digits for a number, such as the superscript 2, which Python reads as none."""
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").isdigit() and not os.environ[name].isdecimal():
            del os.environ[name]


def _unexpected(error: Exception) -> int:
    if os.environ.get(TRACEBACK):
        traceback.print_exc(file=sys.stderr)
    if isinstance(error, OSError | MemoryError):
        _print_lines(cause_of(error))
        return 2
    hiding = shadowing_files()
    _print_lines("\n".join([f"unexpected {cause_of(error)}. Set {TRACEBACK}=1 to print where it was raised.", *hiding]))
    return 2 if hiding or isinstance(error, ImportError) else 1


def _print_lines(text: str) -> None:
    with contextlib.suppress(OSError):  # standard error itself may be the reason
        print("\n".join(f"error: {line}" for line in text.splitlines()), file=sys.stderr)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Standard output and error that can always be written to, and warnings as lines, inside the block."""
    before = sys.stdout, sys.stderr, warnings.showwarning
    out, err = (_Outgoing(stream or _nowhere()) for stream in before[:2])  # None: closed by whoever started us
    sys.stdout, sys.stderr = out, err
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr, warnings.showwarning = before
        out.give_up()
        err.give_up()


class _Outgoing:
    """A text stream in front of another one: hides secrets, and writes any character as its code if need be."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text without secrets."""
        text = without_secrets(text)
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def writelines(self, lines: list[str]) -> None:
        """Writes each line without secrets."""
        for line in lines:
            self.write(line)

    def give_up(self) -> None:
        """Discards what cannot be written, or Python would try again at its end and print a traceback."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
