"""User-defined pieces: given as instances, by `module:Name`, or as entry points of installed distributions."""

import json
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensdistill.cli.main import _parser
from ensdistill.config import Config, build_config, load_config, to_yaml
from ensdistill.errors import ConfigError
from ensdistill.methods.losses import LOSSES, Averaged, DistillationLoss
from ensdistill.methods.perturbations import Gaussian
from ensdistill.settings.families import PieceFamily
from ensdistill.settings.fields import families_of
from ensdistill.settings.validation import settings_help, settings_table
from tests.plugin.ensdistill_example.methods import Focal, LabelProbability, PixelDropout
from tests.plugin.install import distribution, importable

FOCAL = "tests.plugin.ensdistill_example.methods:Focal"
LOSS = """
from ensdistill.methods.losses import DistillationLoss
from ensdistill.settings.base import setting


class Mine(DistillationLoss):
    strength: float = setting(1.0, "How strong.", ge=0, le=3)
    table: str = setting("", "A file.", file=True)

    def __call__(self, student, teachers, labels, on_labels):
        return self.strength * student.square().mean()
"""


class OfThisModule(DistillationLoss):
    """A loss defined in this test module."""

    def __call__(self, student: Any, teachers: Any, labels: Any, on_labels: Any) -> Any:
        return student.mean()


def issues(tree: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build_config(tree)
    return str(caught.value)


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """An installed distribution with one loss."""
    distribution(tmp_path / "site", "my-losses", {"losses": {"mine": "my_losses:Mine"}}, {"my_losses": LOSS})
    with importable(tmp_path / "site"):
        yield tmp_path / "site"


# --- three ways to select a piece ---


def test_a_piece_given_as_an_instance_is_used_unchanged() -> None:
    loss = Focal(gamma=0.5)
    assert Config(loss=loss).loss is loss


def test_a_kind_with_a_colon_is_imported_as_a_name_from_a_module() -> None:
    assert build_config({"loss": {"kind": FOCAL, "gamma": 0.5}}) == Config(loss=Focal(gamma=0.5))


@pytest.mark.usefixtures("plugin")
def test_an_entry_point_can_be_selected_as_a_kind() -> None:
    config = build_config({"loss": {"kind": "mine", "strength": 2.0}})
    assert type(config.loss).__name__ == "Mine"
    assert (config.loss.kind, config.loss.strength) == ("mine", 2.0)


@pytest.mark.usefixtures("plugin")
def test_the_kind_of_a_plugin_piece_is_always_the_name_of_its_entry_point() -> None:
    from my_losses import Mine

    assert Mine().kind == Config(loss=Mine()).loss.kind == "mine"
    assert build_config({"loss": {"kind": "my_losses:Mine"}}) == build_config({"loss": {"kind": "mine"}})


def test_settings_written_to_yaml_are_read_back_as_the_same_piece(tmp_path: Path) -> None:
    config = Config(loss=Focal(gamma=0.5), perturbation=PixelDropout(), metrics=[LabelProbability()])
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "run.yaml") == config
    assert load_config(tmp_path / "run.yaml").hash == config.hash
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["loss"]["kind"] == FOCAL


def test_an_override_changes_one_setting_of_a_custom_piece(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(to_yaml(Config(loss=Focal(gamma=0.5, alpha=0.2))))
    assert load_config(tmp_path / "run.yaml", ["loss.gamma=3"]).loss == Focal(gamma=3.0, alpha=0.2)


def test_a_schedule_changes_a_setting_of_a_custom_piece() -> None:
    config = Config(loss=Focal(), schedule=[{"after_epoch": 2, "set": {"loss.gamma": 0.5}}])
    assert (config.at_epoch(2).loss, config.at_epoch(3).loss) == (Focal(), Focal(gamma=0.5))


def test_an_override_changes_a_setting_of_an_instance() -> None:
    assert build_config({"loss": Focal(alpha=0.2)}, {"loss.gamma": 3.0}).loss == Focal(gamma=3.0, alpha=0.2)


def test_settings_with_custom_pieces_can_be_pickled() -> None:
    config = Config(loss=Focal(gamma=0.5))
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own


def test_a_subclass_of_a_built_in_piece_does_not_have_the_kind_of_its_parent() -> None:
    class Twice(Averaged):
        pass

    assert Twice().kind != "averaged"
    assert type(build_config(Config(loss=Twice()).model_dump(mode="json")).loss) is Twice


# --- classes that other processes cannot import ---


def test_an_instance_of_a_class_defined_in_a_function_is_accepted_with_a_warning() -> None:
    class Local(DistillationLoss):
        pass

    config = Config(loss=Local())
    assert config.at_epoch(1).loss == config.loss
    (warning,) = config.warnings
    assert str(warning).startswith("loss.kind: ")
    assert "no other process can load files of this run" in str(warning)
    assert Config(loss=Focal()).warnings == []


def test_a_file_that_names_a_class_defined_in_a_script_is_refused_with_the_reason() -> None:
    text = issues({"loss": {"kind": "__main__:Elsewhere"}})
    assert text == (
        "loss.kind: '__main__:Elsewhere' is defined in a script, notebook or function, so no other process can "
        "import it. Move it to a module, and select it as module:Name."
    )


# --- identity ---


def test_the_hash_depends_on_the_distribution_and_the_version_of_a_plugin(tmp_path: Path) -> None:
    hashes = set()
    for version in ("1.0", "1.1", "1.0"):
        site = tmp_path / str(len(list(tmp_path.iterdir())))
        distribution(site, "my-losses", {"losses": {"mine": "my_losses:Mine"}}, {"my_losses": LOSS}, version)
        with importable(site):
            config = build_config({"loss": {"kind": "mine"}})
            assert config.plugins == {"loss": f"my-losses {version}"}
            hashes.add(config.hash)
    assert len(hashes) == 2


def test_the_hash_depends_on_the_source_of_a_module_that_belongs_to_no_distribution(tmp_path: Path) -> None:
    hashes = []
    for n, text in enumerate((LOSS, LOSS + "\n# changed\n", LOSS)):
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "my_losses.py").write_text(text)
        with importable(tmp_path / str(n)):
            hashes.append(build_config({"loss": {"kind": "my_losses:Mine"}}).hash)
    assert hashes[0] == hashes[2] != hashes[1]


@pytest.mark.parametrize("line", ["return student.mean()", "return student.sum() if labels in {1, 2} else 0.0"])
def test_a_class_defined_in_a_notebook_is_identified_by_its_compiled_methods(line: str) -> None:
    def of(text: str) -> str:
        space: dict[str, Any] = {"__name__": "cell", "DistillationLoss": DistillationLoss}
        head = "class Mine(DistillationLoss):\n    def __call__(self, student, teachers, labels, on_labels):\n        "
        exec(head + text, space)  # noqa: S102 - our own
        return Config(loss=space["Mine"]()).hash

    assert of(line) == of(line) != of(line.replace("student", "teachers"))


def test_file_paths_of_custom_pieces_are_made_absolute_and_excluded_from_the_hash(tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(LOSS)
    (tmp_path / "run.yaml").write_text("loss: {kind: 'my_losses:Mine', table: one.csv}")
    with importable(tmp_path):
        one, other = load_config(tmp_path / "run.yaml"), load_config("kd", ["loss.kind=my_losses:Mine"])
        assert one.loss.table == str(tmp_path / "one.csv")
        assert one.model_copy(update={"loss": type(one.loss)(table="two")}).hash == one.hash
        assert load_config(tmp_path / "run.yaml", ["loss.table=x"]).loss.table == str(Path.cwd() / "x")
        assert other.loss.table == ""


# --- invalid pieces ---


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            {"kind": "nowhere:Mine"},
            "loss.kind: 'nowhere:Mine' cannot be imported (ModuleNotFoundError: No module named",
        ),
        ({"kind": FOCAL + "s"}, f"loss.kind: '{FOCAL}s' cannot be imported (AttributeError: "),
        ({"kind": "json:dumps"}, "loss.kind: 'json:dumps' is of type function, not a class. Inherit from "),
        (
            {"kind": "ensdistill.methods.perturbations:Ods"},
            "loss.kind: 'ensdistill.methods.perturbations:Ods' is not a sub",
        ),
        ({"kind": "focl"}, "loss.kind: 'focl' is not one of aekd, averaged, "),
        ({"kind": FOCAL, "gama": 1.0}, f"loss.gama: no such setting of {FOCAL} (did you mean gamma?)"),
        ({"kind": FOCAL, "gamma": 11.0}, "loss.gamma: must be less than or equal to 10, not 11.0"),
        (Gaussian(), "loss: must be an instance of DistillationLoss, not ensdistill.methods.perturbations."),
        (Focal, f"loss: must be an instance of DistillationLoss, not {FOCAL}"),
        (DistillationLoss(), "loss: must be an instance of DistillationLoss, not ensdistill.methods.losses.base:"),
    ],
    ids=str,
)
def test_a_value_that_is_not_a_loss_is_reported_in_one_line(value: Any, line: str) -> None:
    text = issues({"loss": value})
    assert text.startswith(line)
    assert "\n" not in text


def test_a_module_that_raises_on_import_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("raise RuntimeError('no license\\nfound')")
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(3)")
    with importable(tmp_path):
        assert issues({"loss": {"kind": "raises:Mine"}}).startswith(
            "loss.kind: 'raises:Mine' cannot be imported (RuntimeError: no license). Put its folder on PYTHONPATH"
        )
        assert issues({"loss": {"kind": "leaves:Mine"}}).startswith("loss.kind: 'leaves:Mine' cannot be imported (Sys")


def test_a_class_that_declares_a_kind_is_rejected_when_it_is_defined() -> None:
    with pytest.raises(TypeError, match="Declares: must not declare kind; remove it"):

        class Declares(DistillationLoss):
            kind: str = "mine"


def test_the_kind_of_a_custom_piece_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="cannot be set, got 'other'"):
        Focal(kind="other")


# --- invalid entry points ---


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[None]:
    """Installs plugins: one raises, two share a name, one has a built-in name, one is not a loss, and one is valid."""
    site = tmp_path / "site"
    distribution(site, "bad", {"losses": {"bad": "bad:Mine"}}, {"bad": "raise RuntimeError('boom')"})
    distribution(site, "no-loss", {"losses": {"none": "no_loss:VALUE"}}, {"no_loss": "VALUE = 3"})
    distribution(site, "thief", {"losses": {"averaged": "thief:Mine"}}, {"thief": LOSS})
    distribution(site, "one", {"losses": {"twice": "one:Mine"}}, {"one": LOSS})
    distribution(site, "two", {"losses": {"twice": "two:Mine"}}, {"two": LOSS})
    distribution(site, "good", {"losses": {"good": "good:Mine"}}, {"good": LOSS})
    with importable(site):
        yield


@pytest.mark.usefixtures("broken")
def test_a_broken_plugin_causes_no_error_and_no_warning_in_runs_that_do_not_use_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build_config({"loss": {"kind": "good"}}).loss.kind == "good"
        assert type(build_config({"loss": {"kind": "averaged"}}).loss) is Averaged
        _parser().parse_args(["distill", "kd"])
    assert "bad" not in sys.modules


@pytest.mark.usefixtures("broken")
def test_the_help_prints_one_warning_for_each_plugin_that_cannot_be_used() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = settings_help(Config, "settings:")
    assert "loss.strength [good] = 1; at least 0, at most 3" in text
    assert sorted(str(one.message) for one in caught) == [
        "ensdistill.losses: 'averaged', thief:Mine of thief 1.2.3, is also the name of a built-in piece, which is used "
        "instead. Rename this plugin.",
        "ensdistill.losses: 'bad', bad:Mine of bad 1.2.3, cannot be imported (RuntimeError: boom). Fix or remove this "
        "plugin.",
        "ensdistill.losses: 'none', no_loss:VALUE of no-loss 1.2.3, is of type int, not a class. Inherit from "
        "ensdistill.methods.losses.base.DistillationLoss.",
        "ensdistill.losses: 'twice' is the name of more than one plugin: one:Mine of one 1.2.3 and two:Mine of two "
        "1.2.3. Select one as module:Name.",
    ]


@pytest.mark.usefixtures("broken")
def test_a_run_that_uses_a_broken_plugin_ends_with_a_one_line_error() -> None:
    assert issues({"loss": {"kind": "bad"}}) == (
        "loss.kind: 'bad', bad:Mine of bad 1.2.3, cannot be imported (RuntimeError: boom). Fix or remove this plugin."
    )
    assert issues({"loss": {"kind": "twice"}}) == (
        "loss.kind: 'twice' is the name of more than one plugin: one:Mine of one 1.2.3 and two:Mine of two 1.2.3. "
        "Select one as module:Name."
    )
    assert build_config({"loss": {"kind": "two:Mine"}}).loss.kind == "two:Mine"


# --- help, table and schema ---


@pytest.mark.usefixtures("plugin")
def test_the_help_lists_the_settings_of_a_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["distill", "--help"])
    assert "loss.strength [mine]" in capsys.readouterr().out


def test_the_settings_table_lists_the_given_pieces() -> None:
    rows = {row.name: row.kind for row in settings_table(Config, own=[Focal])}
    assert rows["loss.gamma"] == FOCAL
    assert "loss.gamma" not in {row.name for row in settings_table(Config)}


@pytest.mark.usefixtures("plugin")
def test_the_schema_accepts_built_in_pieces_and_plugins_and_paths_but_rejects_invalid_values() -> None:
    from jsonschema import Draft202012Validator

    check = Draft202012Validator(Config.model_json_schema())
    for loss in ({"kind": "averaged", "alpha": 0.5}, {"kind": "mine", "strength": 2}, {"kind": FOCAL, "gamma": 1}):
        assert check.is_valid({"loss": loss}), loss
    for loss in ({"kind": "averaged", "alpha": 2}, {"kind": "mine", "strength": 9}, {"kind": "nothing"}, {}):
        assert not check.is_valid({"loss": loss}), loss
    tree = json.loads(build_config({"loss": {"kind": "mine"}}).model_dump_json())
    assert check.is_valid(tree)


def test_every_family_has_an_entry_point_group() -> None:
    groups = {family.group for family in families_of(Config)}
    names = {"students", "perturbations", "losses", "averaging", "data", "models", "metrics", "optimizers"}
    names |= {"augmentations"}
    assert groups == {f"ensdistill.{name}" for name in names}


def test_a_class_in_a_new_module_of_the_package_is_found_as_a_built_in_piece(tmp_path: Path) -> None:
    # A separate process would be slow, so the package path is extended by a folder.
    import ensdistill.methods.losses as package

    text = LOSS.replace(
        "class Mine(DistillationLoss):", 'class Mine(DistillationLoss):\n    kind: Literal["mine"] = "mine"'
    )
    (tmp_path / "brand_new.py").write_text("from typing import Literal\n" + text)
    package.__path__.append(str(tmp_path))
    try:
        found = PieceFamily("losses", DistillationLoss, package.__name__)
        assert [kind for kind in found.built_in if kind not in LOSSES.built_in] == ["mine"]
    finally:
        package.__path__.remove(str(tmp_path))
        sys.modules.pop("ensdistill.methods.losses.brand_new")
        from ensdistill.settings import pieces

        pieces._built_in[:] = [piece for piece in pieces._built_in if piece.__name__ != "Mine"]
