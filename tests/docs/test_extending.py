"""The modules, settings, entry points and suites on the page for plugin authors work as shown."""

import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ensdistill.config import Config, load_config
from ensdistill.settings.fields import families_of
from ensdistill_tune.study.loading import load_study
from tests.docs.documents import ROOT
from tests.plugin.install import distribution, importable

EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def shown_in(text: str, language: str) -> list[tuple[str, str]]:
    """Returns all blocks of a language as pairs of file name (empty if none) and text."""
    return re.findall(rf"^```{language}(?: ([\w.]+))?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_example_on_the_plugin_page_works(tmp_path: Path) -> None:
    """The test writes the modules, reads the settings, runs the Python code and runs the suites of the page."""
    blocks_with_files = [(file, text) for file, text in shown_in(EXTENDING, "python") if file]
    for file, text in blocks_with_files:
        (tmp_path / file).write_text(text)
    assert [file for file, _ in blocks_with_files] == ["my_methods.py", "test_my_methods.py"]
    with importable(tmp_path):
        for file, text in shown_in(EXTENDING, "python"):
            if not file:
                exec(text, {})  # noqa: S102 - our own page
        for n, (_, text) in enumerate(shown_in(EXTENDING, "yaml")):
            (tmp_path / f"{n}.yaml").write_text(text)
        assert load_config(tmp_path / "0.yaml").loss.kind == "my_methods:Focal"
        assert "loss.gamma" in load_study(tmp_path / "1.yaml").search
        for (_, text), names in zip(shown_in(EXTENDING, "toml"), [("focal", "label_probability")], strict=True):
            groups = tomllib.loads(text)["project"]["entry-points"]
            assert tuple(name for group in groups.values() for name in group) == names
            distribution(tmp_path / "site", "mine", {g.partition(".")[2]: e for g, e in groups.items()}, {})
        with importable(tmp_path / "site"):
            assert load_config("kd", ["loss.kind=focal", "loss.gamma=3"]).loss.kind == "focal"


def test_the_plugin_page_lists_every_family_with_its_base_class() -> None:
    rows = [line.split("|") for line in EXTENDING.splitlines() if line.startswith("| ") and "`ensdistill." in line]
    groups = {row[4].strip(" `"): row[2].split("`")[1] for row in rows}
    assert groups.keys() == {family.group for family in families_of(Config)}
    for family in families_of(Config):
        assert pkgutil.resolve_name(groups[family.group]) is family.base


@pytest.mark.e2e
def test_the_contract_suites_on_the_plugin_page_pass_without_configuration(tmp_path: Path) -> None:
    for file, text in shown_in(EXTENDING, "python"):
        if file:
            (tmp_path / file).write_text(text)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_methods.py"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tune"), str(tmp_path)])}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "warning" not in done.stdout
