"""Which package may import which, checked on every import statement, including those in functions, and at run time."""

import argparse
import ast
import pkgutil
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ensdistill.cli.main
import ensdistill_tune as edt
import ensdistill_tune.cli.main
from tests.tiny import TinyStudy

ROOT = Path(__file__).parents[2]
MLFLOW_FILES = [
    "batches",
    "event_writer",
    "logged_model",
    "mlflow_writer",
    "model_content",
    "model_registry",
    "provenance",
    "run_index",
    "served_student",
]
RAY_FILES = [
    "ray_cluster",
    "ray_nodes",
    "ray_pieces",
    "ray_resources",
    "ray_runner",
    "ray_trainable",
    "schedulers",
    "teacher_tasks",
]
STUDY_PACKAGES = {"ensdistill_tune", "ray", "optuna", "mlflow"}


def imports_of(file: Path) -> set[str]:
    """Returns the dotted names of all modules imported by a file, including imports in functions."""
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


@pytest.mark.parametrize(
    ("library", "files"),
    [
        ("mlflow", {f"{name}.py" for name in MLFLOW_FILES}),
        (
            "optuna",
            {"fitted_trials.py", "importance.py", "optuna_study.py", "results.py", "searchers.py", "suggester.py"},
        ),
        ("ray", {f"{name}.py" for name in RAY_FILES}),
    ],
)
def test_each_library_used_only_by_studies_is_imported_only_in_its_designated_files(
    library: str, files: set[str]
) -> None:
    users = {
        f.name for f in sources("tune/ensdistill_tune") if any(name.split(".")[0] == library for name in imports_of(f))
    }
    assert users == files


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("ensdistill/runtime/files.py", "from ensdistill.settings.base import Settings"),
        ("ensdistill/data/splits.py", "import ray"),
        ("ensdistill/methods/losses/ekd.py", "from ensdistill.methods.students.single import Single"),
        ("ensdistill/export/exporter.py", "from ensdistill_tune.records.events import State"),
        ("ensdistill/export/exporter.py", "def f() -> None:\n    import ensdistill.cli.main"),
        ("tune/ensdistill_tune/session.py", "from ensdistill.cli.main import main"),
        ("tune/ensdistill_tune/search/pbt.py", "from ensdistill_tune.study.study_config import Study"),
        ("tune/ensdistill_tune/records/events.py", "from ensdistill_tune.records.event_log import EventLog"),
    ],
)
def test_an_import_that_violates_the_layering_is_detected(tmp_path: Path, file: str, statement: str) -> None:
    for name in ("ensdistill", "tune", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    planted = tmp_path / file
    planted.write_text(f"{planted.read_text()}\n\n{statement}\n")
    program = (
        "import sys; sys.path[:0] = ['.', 'tune'];"
        " from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert " broken" in done.stdout, done.stdout


def test_only_the_evaluate_command_and_the_test_evaluation_load_the_test_split() -> None:
    users = {
        str(f.relative_to(ROOT))
        for p in ("ensdistill", "tune/ensdistill_tune")
        for f in sources(p)
        if "load_test" in f.read_text()
    }
    assert users == {
        "ensdistill/data/__init__.py",
        "ensdistill/cli/commands.py",
        "ensdistill/testing/data.py",  # the contract suite of data sources
        "tune/ensdistill_tune/analysis/test_evaluation.py",
    }


@pytest.mark.e2e
def test_the_core_package_works_without_the_study_packages(tmp_path: Path) -> None:
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {STUDY_PACKAGES!r}:
            raise ImportError(f"{{name}} crosses the boundary")
sys.meta_path.insert(0, Refuse())
from ensdistill import distill, get_ensemble, load_config, load_data
from ensdistill.cli.main import main as cli
small = ["data.train_size=40", "model.width=2", "teachers.model.width=2"]
small += ["teachers.training.epochs=1", "training.epochs=1"]
config = load_config("latentbe", small)
data = load_data(config.data)
ensemble = get_ensemble(config, data, {str(tmp_path)!r})
*_, last = distill(config, ensemble, data)
assert 0 <= last.val["accuracy"] <= 1
assert not {STUDY_PACKAGES!r} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SLOW = {"mlflow", "numpy", "optuna", "pandas", "plotly", "ray", "scipy", "sklearn", "torch", "torchvision"}
CPU_SECONDS = 1.5  # really about 0.4 s; torch alone takes 2 s


def slow_imports_of(program: str) -> str:
    """Returns the slow modules imported by a separate program, which must use little CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = f"import sys\n{program}\nprint(sorted({SLOW!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < CPU_SECONDS
    return done.stdout.splitlines()[-1]


def test_ray_starts_before_torch_is_imported() -> None:
    program = "import sys, ensdistill_tune.cli.commands, ensdistill_tune.execution.ray_executor"
    loaded = f"{program}\nassert not {{'torch', 'mlflow', 'scipy', 'sklearn'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, check=True)


@pytest.mark.parametrize("module", ["ensdistill.cli.main", "ensdistill_tune.cli.main"])
def test_printing_help_does_not_import_slow_modules(module: str) -> None:
    program = f"from {module} import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert slow_imports_of(program) == "[]"


def test_creating_a_study_in_python_does_not_import_slow_modules() -> None:
    program = "import ensdistill_tune as edt\nedt.StudyConfig(search={'loss.temperature': edt.uniform(1, 2)}).check()"
    assert slow_imports_of(f"{program}\nimport ensdistill_tune.cli.steering") == "[]"


def test_every_public_name_of_the_study_layer_can_be_imported() -> None:
    assert set(edt.__all__) == {*edt._MODULES, "__version__"}
    assert all(hasattr(edt, name) for name in edt.__all__)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "words",
    [
        ["check", "search_spaces/digits.yaml", "--no-estimate"],
        ["check", "search_spaces/cluttered_digits.yaml", "--no-estimate", "--json"],
        ["schema"],
        ["status"],
        ["status", "tiny", "--no-follow"],
        ["status", "tiny", "--json"],
    ],
    ids=" ".join,
)
def test_commands_without_computation_do_not_import_slow_modules(words: list[str], tiny: TinyStudy) -> None:
    where = ["--studies-dir", str(tiny.studies)]
    program = f"from ensdistill_tune.cli.main import main\nassert main({[*words, *where]!r}) == 0"
    assert slow_imports_of(program) == "[]"


@pytest.mark.parametrize("module", [ensdistill.cli.main, ensdistill_tune.cli.main], ids=lambda module: module.__name__)
def test_every_command_has_an_importable_function(module: ModuleType) -> None:
    (commands,) = (a for a in module._parser()._actions if isinstance(a, argparse._SubParsersAction))
    for sub in commands.choices.values():
        assert callable(pkgutil.resolve_name(sub.get_default("command")))
