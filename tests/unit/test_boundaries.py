"""Who may import whom: read off every import statement, those inside functions too, and tried for real."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDY_PACKAGES = {"ensdistill_tune", "ray", "optuna", "mlflow"}


def imports_of(file: Path) -> set[str]:
    """The dotted names of all modules that a file imports, wherever the statement stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", sources("ensdistill"), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_core_imports_nothing_of_the_study_layer(file: Path) -> None:
    assert not {name for name in imports_of(file) if name.split(".")[0] in STUDY_PACKAGES}


@pytest.mark.parametrize(
    ("library", "files"),
    [
        ("mlflow", {"mlflow_store.py", "registry.py"}),
        ("optuna", {"importance.py", "searchers.py"}),
        ("ray", {"placement.py", "ray_start.py", "runner.py", "schedulers.py", "worker.py"}),
    ],
)
def test_each_study_library_is_imported_in_its_own_files_only(library: str, files: set[str]) -> None:
    users = {
        f.name for f in sources("tune/ensdistill_tune") if any(name.split(".")[0] == library for name in imports_of(f))
    }
    assert users == files


@pytest.mark.parametrize("axis", ["perturbations.py", "averaging.py", "transfer", "students"])
def test_pieces_of_one_axis_know_nothing_of_the_other_axes(axis: str) -> None:
    shared = {"ensdistill.students.base"}  # the type of all students, not a piece
    others = {"perturbations", "averaging", "transfer", "students"} - {axis.removesuffix(".py")}
    files = [ROOT / "ensdistill" / axis] if axis.endswith(".py") else sources(f"ensdistill/{axis}")
    for file in files:
        for name in imports_of(file):
            parts = name.split(".")
            if not any(name == s or name.startswith(f"{s}.") for s in shared):
                assert not (parts[0] == "ensdistill" and len(parts) > 1 and parts[1] in others), (file, name)


def test_only_the_evaluation_command_and_the_final_test_open_the_test_split() -> None:
    users = {
        str(f.relative_to(ROOT))
        for p in ("ensdistill", "tune/ensdistill_tune")
        for f in sources(p)
        if "load_test" in f.read_text()
    }
    assert users == {"ensdistill/data/__init__.py", "ensdistill/cli.py", "tune/ensdistill_tune/final.py"}


@pytest.mark.e2e
def test_the_core_distils_where_the_study_packages_cannot_be_imported(tmp_path: Path) -> None:
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {STUDY_PACKAGES!r}:
            raise ImportError(f"{{name}} crosses the boundary")
sys.meta_path.insert(0, Refuse())
from ensdistill import distill, get_ensemble, load_config, load_data
from ensdistill import cli
small = ["data.train=40", "model.width=2", "teachers.model.width=2", "teachers.training.epochs=1", "training.epochs=1"]
config = load_config("latentbe", small)
data = load_data(config.data)
ensemble = get_ensemble(config, data, {str(tmp_path)!r})
*_, last = distill(config, ensemble, data)
assert 0 <= last.val["accuracy"] <= 1
assert not {STUDY_PACKAGES!r} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
def test_commands_do_not_wait_for_slow_imports_that_few_of_them_need() -> None:
    slow = {"mlflow", "pandas", "plotly", "ray", "scipy", "sklearn", "torchvision"}
    program = f"import sys, ensdistill_tune.cli; print({slow!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
