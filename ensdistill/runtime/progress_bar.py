"""Progress of long tasks on standard error: a bar on a terminal, otherwise one line per tenth of the task."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ensdistill.errors import ConfigIssue
from ensdistill.runtime.text import printable

_quiet = ContextVar("quiet", default=False)  # per thread, so that other studies in this process can print

_NOTES = set[str]()

Advance = Callable[[int, str], None]  # (number of completed parts, note next to the bar)


@contextmanager
def silence() -> Iterator[None]:
    """Suppresses this thread's progress bars and its warnings about images, teachers and students inside the block."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_silent() -> bool:
    """Returns whether this thread is inside a `silence` block."""
    return _quiet.get()


def console(stderr: bool = False) -> Console:
    """Returns a console that prints text unchanged: brackets in a path are not markup, and `:x:` is not an emoji.

    In a notebook, the console prints plain lines; inside `silence`, it prints nothing. If the stream is not a terminal,
    the console has 150 columns, which is enough for this project's tables.

    Args:
        stderr: Whether the console writes to standard error instead of standard output.
    """
    plain = _console(stderr)
    return plain if plain.is_terminal else _console(stderr, width=150)


def _console(stderr: bool, width: int | None = None) -> Console:
    silent: bool | None = False if is_silent() else None  # False also disables live panels
    # the streams of a notebook report that they are terminals
    notebook: bool | None = False if Console().is_jupyter else None
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        width=width,
        quiet=is_silent(),
        force_interactive=silent,
        force_terminal=notebook,
        force_jupyter=False,
    )


def note(words: str) -> None:
    """Prints one line to standard error, unless this thread is silenced or the process has already printed it."""
    if not is_silent() and words not in _NOTES:
        _NOTES.add(words)
        console(stderr=True).print(words, soft_wrap=True)


def show_warnings(warnings: Iterable[ConfigIssue]) -> None:
    """Prints one line per warning to standard error, unless this thread is silent."""
    if is_silent():
        return
    for warning in warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Shows the progress of one task inside the block.

    Args:
        title: Name of the task.
        total: Number of parts of the task.

    Yields:
        A function to call after each part, with the number of completed parts and a note.
    """
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield _lines(screen, title, total)
        return
    columns = [
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]
    with Progress(TextColumn("{task.description}", markup=False), *columns, console=screen) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


def _lines(screen: Console, title: str, total: int) -> Advance:
    shown = -1

    def advance(done: int, note: str) -> None:
        nonlocal shown
        tenth = 10 * done // max(total, 1)
        if tenth > shown:
            shown = tenth
            screen.print(f"{title}: {done}/{total}{'  ' + note if note else ''}", soft_wrap=True)

    return advance
