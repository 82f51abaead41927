"""The start of both commands: errors name the module that cannot be imported, and the cause."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ensdistill import entry

ROOT = Path(__file__).parents[4]


def module(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> str:
    (folder / "started_module.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "started_module", raising=False)
    return "started_module"


def test_the_exit_code_is_the_return_value_of_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry.run(module(monkeypatch, tmp_path, "def main():\n    return 3\n")) == 3


def test_a_failed_import_is_reported_in_one_line_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = module(monkeypatch, tmp_path, "raise ImportError('no such library')\n")
    monkeypatch.delenv(entry.TRACEBACK, raising=False)
    assert entry.run(name) == 2
    expected = "error: started_module cannot be imported: ImportError: no such library\n"
    assert capsys.readouterr().err == expected
    monkeypatch.setenv(entry.TRACEBACK, "1")
    assert entry.run(name) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_during_the_import_ends_a_command_with_exit_code_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert entry.run(module(monkeypatch, tmp_path, "raise KeyboardInterrupt\n")) == 130


def test_a_deleted_working_directory_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def removed() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", removed)
    assert entry.run("json") == 2
    assert "the current folder cannot be used (No such file or directory)" in capsys.readouterr().err


def test_a_file_that_shadows_a_standard_module_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert entry.shadowing_files() == []
    (tmp_path / "random.py").touch()
    (sentence,) = entry.shadowing_files()
    assert sentence.startswith(f"{tmp_path / 'random.py'}: has the same name as the module random")


def test_a_shadowed_module_is_found_even_if_installed_packages_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "importlib.metadata", ModuleType("importlib.metadata"))  # without its functions
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "random.py").touch()
    assert len(entry.shadowing_files()) == 1
    assert "importlib.metadata cannot be imported" in capsys.readouterr().err


COMMAND = """
import atexit
import sys

def main():
    atexit.register(print, "handler")
    print("output")
    print("error", file=sys.stderr)
    {}
"""


@pytest.mark.parametrize(("end", "code"), [("return 3", 3), ("return 0", 0), ("raise SystemExit(4)", 4)])
def test_a_process_runs_its_exit_handlers_and_writes_all_output_before_it_ends(
    end: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "started_module.py").write_text(COMMAND.format(end))
    start = "from ensdistill.entry import run_process; run_process('started_module')"
    done = subprocess.run(
        [sys.executable, "-c", start],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "output\nhandler\n", "error\n")


def test_a_process_does_not_free_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    entry._end([])  # after an exception, Python ends as usual
    assert codes == []
    entry._end([2])
    assert codes == [2]
