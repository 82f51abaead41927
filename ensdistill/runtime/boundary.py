"""Outermost layer of a command: filters output and converts every exception to error lines and an exit code."""

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


def run_command(work: Callable[[], int], failure: int = 1) -> int:
    """Runs a command and returns its exit code.

    Each issue in an error raised by this project is printed on a separate line of standard error. An exception raised
    by another library is reduced to one line that states the cause. Passwords are hidden in all output, and characters
    that the stream cannot encode are escaped.

    Args:
        work: Function that parses the arguments, runs the command and returns the exit code.
        failure: Exit code after a failed training run or an unexpected error.

    Returns:
        The exit code of the command; `failure` after a failed training run or an unexpected error, 2 for invalid input
        or a module that cannot be imported, 130 after an interruption.
    """
    _ignore_invalid_terminal_size()
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
            return failure
        except BrokenPipeError:  # the reader has closed the pipe, as `head` does
            return failure
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            return _unexpected(error, failure)


def cause_of(error: BaseException) -> str:
    """Returns the cause of an exception as one line.

    Args:
        error: The exception.

    Returns:
        The path and the reason for a file system error; `out of memory` if memory is exhausted; otherwise the type of
        the exception and the first line of its message.
    """
    cause = getattr(error, "cause", None)  # set by Ray's errors, whose messages are tracebacks
    if isinstance(cause, BaseException) and cause is not error:
        return cause_of(cause)
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return f"{' -> '.join(names)}{': ' if names else ''}{error.strerror}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = "" if not lines else lines[-1] if any("Traceback" in line for line in lines) else lines[0]
    return f"{type(error).__name__}: {message[:500]}" if message else type(error).__name__


def _ignore_invalid_terminal_size() -> None:
    """Unsets COLUMNS or LINES if its value would crash Rich, such as a superscript 2, which `int` rejects."""
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").isdigit() and not os.environ[name].isdecimal():
            del os.environ[name]


def _unexpected(error: Exception, failure: int) -> int:
    """Prints an unexpected error and returns its exit code: `failure`, or 2 if the fix is known."""
    if os.environ.get(TRACEBACK):
        traceback.print_exc(file=sys.stderr)
    if isinstance(error, OSError | MemoryError):
        _print_lines(cause_of(error))
        return 2
    hiding = shadowing_files()
    _print_lines("\n".join([f"unexpected {cause_of(error)}. Set {TRACEBACK}=1 to print where it was raised.", *hiding]))
    return 2 if hiding or isinstance(error, ImportError) else failure


def _print_lines(text: str) -> None:
    with contextlib.suppress(OSError):  # standard error itself may be the stream that failed
        print("\n".join(f"error: {line}" for line in text.splitlines()), file=sys.stderr)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Filters standard output and standard error inside the block; prints each warning once, on one line."""
    before = sys.stdout, sys.stderr, warnings.showwarning
    out, err = (_Outgoing(stream or _nowhere()) for stream in before[:2])  # a stream is None if the parent closed it
    sys.stdout, sys.stderr = out, err
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:  # a network that is built several times issues its warnings each time
            shown.add(str(message))
            print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        yield
    finally:
        sys.stdout, sys.stderr, warnings.showwarning = before
        out.discard_unwritten()
        err.discard_unwritten()


class _Outgoing:
    """A text stream wrapper that hides secrets and escapes characters that the stream cannot encode."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text with its secrets masked, and returns the number of characters written."""
        text = without_secrets(text)
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def writelines(self, lines: list[str]) -> None:
        """Writes each line with its secrets masked."""
        for line in lines:
            self.write(line)

    def discard_unwritten(self) -> None:
        """Discards text that cannot be written; otherwise Python would try again at exit and print a traceback."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
