"""Long work shows how far it is: a bar on a terminal, a line for every tenth elsewhere. Always on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_quiet = ContextVar("quiet", default=False)  # of one thread: another study may print

Advance = Callable[[int, str], None]  # (how many are done, what to say beside it)


@contextmanager
def silence() -> Iterator[None]:
    """Inside the block this thread shows no progress and prints no warnings about images, teachers and students."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_silent() -> bool:
    """Whether this thread prints nothing at the moment."""
    return _quiet.get()


def console(stderr: bool = False) -> Console:
    """Returns the console on standard output or error; where that is no terminal, wide enough for our tables.

    In a notebook it prints plain lines. Inside `silence` it prints nothing.

    Texts are printed as they are: brackets in a path are no markup, `:x:` is no emoji.
    """
    plain = _console(stderr)
    return plain if plain.is_terminal else _console(stderr, width=150)


def _console(stderr: bool, width: int | None = None) -> Console:
    silent: bool | None = False if is_silent() else None  # no live panel either
    notebook: bool | None = False if Console().is_jupyter else None  # its streams claim to be terminals
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


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Shows the progress of one piece of work; the block calls what it is given with the number of parts done."""
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
