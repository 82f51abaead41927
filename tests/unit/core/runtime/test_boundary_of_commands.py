"""No command ends with a traceback, for any exception and any output stream."""

import errno
import io
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import ensdistill
import ensdistill_tune
from ensdistill.cli.main import main
from ensdistill.entry import shadowing_files
from ensdistill.errors import ConfigError, DataError, EnsdistillError
from ensdistill.runtime.boundary import TRACEBACK, cause_of, run_command
from ensdistill.runtime.progress_bar import console
from ensdistill_tune.cli.main import main as tune
from tests.commands import call


def raises(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a: wrong"), 2, "error: a: wrong"),
        (DataError("x\ny"), 2, "error: x\nerror: y"),
        (EnsdistillError("diverged"), 1, "error: diverged"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "error: /x/y: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device"),
        (MemoryError(), 2, "error: out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("embedded null byte"), 1, "error: unexpected ValueError: embedded null byte."),
        (RuntimeError(), 1, "error: unexpected RuntimeError."),
        (RecursionError("too deep\nmore"), 1, "error: unexpected RecursionError: too deep."),
        (KeyError("a"), 1, "error: unexpected KeyError: 'a'."),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 1, "error: unexpected UnicodeDecodeError: "),
    ],
)
def test_every_exception_is_printed_in_one_line_and_sets_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raises(error)) == code
    told = capsys.readouterr().err
    assert told.startswith(line)
    assert "Traceback" not in told


def test_a_command_can_define_a_different_exit_code_for_failures() -> None:
    for error in (EnsdistillError("diverged"), RuntimeError("a bug"), BrokenPipeError()):
        assert run_command(raises(error), failure=2) == 2


def test_if_an_error_message_is_a_traceback_its_last_line_is_reported_as_the_cause() -> None:
    error = RuntimeError("Traceback (most recent call last):\n  File x\nValueError: the reason")
    assert cause_of(error) == "RuntimeError: ValueError: the reason"


def test_the_traceback_is_printed_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TRACEBACK, "1")
    run_command(raises(ValueError("http://me:planted@host")))
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "planted" not in told


def test_the_output_of_commands_contains_no_secret_from_any_source(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        uri = "http://me:planted-out@host"
        print(uri)
        print(uri, file=sys.stderr)
        console().print(uri)
        warnings.warn(uri, stacklevel=1)
        sys.stdout.writelines([uri])
        return 0

    assert run_command(work) == 0
    printed = capsys.readouterr()
    assert "planted" not in printed.out + printed.err
    assert printed.out.count("http://***@host") == 3
    assert printed.err.count("http://***@host") == 2


@pytest.mark.parametrize(
    "words",
    [
        ["resume", "a", "--port", "http://me:planted@host"],
        ["ui", "--port", "http://me:planted@host"],
        ["launch", "http://me:planted@host", "--studies-dir", "/nowhere"],
        ["check", "search_spaces/digits.yaml", "--set", "http://me:planted@host"],
    ],
)
def test_a_rejected_command_line_is_printed_without_its_secrets(words: list[str]) -> None:
    done = call("ensdistill-tune", *words)
    assert done.code == 2
    assert "http://***@host" in done.err
    assert "planted" not in done.err


def test_text_that_looks_like_markup_is_printed_unchanged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console().print("a[/b] [old] :smile: [red]x", soft_wrap=True)
    assert capsys.readouterr().out == "a[/b] [old] :smile: [red]x\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_a_stream_cannot_encode_are_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))

    def work() -> int:
        print("\u2501 and \udcff")  # a table line, and a byte in a file name that is not UTF-8
        return 0

    assert run_command(work) == 0
    written = raw.getvalue()
    assert written.endswith(b" and \\udcff\n")
    assert written.startswith("\u2501".encode(encoding, "backslashreplace"))


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_writing_standard_output_to_a_full_disk_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert run_command(lambda: 0) == 2
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_closed_standard_streams_cause_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert tune(["schema"]) == 0
    assert main(["distill", "no-such-preset"]) == 2
    assert sys.stdout is None


@pytest.mark.parametrize("columns", ["1", "0", "-3", "nonsense", "99999999"])
def test_commands_work_in_a_terminal_of_any_width(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in (["--help"], ["launch", "--help"], ["check", "search_spaces/digits.yaml", "--no-estimate"]):
        done = call("ensdistill-tune", *words)
        assert done.code == 0
        assert "Traceback" not in done.err


def test_a_closed_pipe_ends_a_command_without_an_error_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))

    def work() -> int:
        print("x" * 10**6)
        return 0

    assert run_command(work) == 1
    assert capsys.readouterr().err == ""
    sys.stdout.flush()  # as Python does at exit: remaining output is discarded


@pytest.mark.parametrize("size", ["\u00b2", "\u2460", "\u0663", "0", "-5", "abc", "1e9"])
def test_a_terminal_size_that_is_not_a_number_is_ignored(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", size)
    monkeypatch.setenv("LINES", size)
    done = call("ensdistill-tune", "check", "search_spaces/digits.yaml", "--no-estimate")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("module", ["ensdistill", "ensdistill_tune"])
def test_a_deleted_working_directory_is_reported(module: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    folders = [str(Path(package.__file__).parents[1]) for package in (ensdistill, ensdistill_tune) if package.__file__]
    command = f"rmdir {shlex.quote(str(gone))}; exec {shlex.quote(sys.executable)} -m {module} --version"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(["sh", "-c", command], cwd=gone, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the current folder cannot be used (No such file or directory)")
    assert len(done.stderr.splitlines()) == 1


def test_module_files_inside_a_library_are_not_reported_as_shadowing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "ray"):  # Ray inserts a folder before all others when it is imported
        folder.mkdir(exist_ok=True)
        (folder / "rich.py").touch()
        monkeypatch.syspath_prepend(str(folder))
    assert [line for line in shadowing_files() if "rich" in line]
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert not [line for line in shadowing_files() if "rich" in line]


def test_a_user_file_that_shadows_a_module_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "rich.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [line for line in shadowing_files() if line.startswith(f"{tmp_path / 'rich.py'}: has the same name")]
