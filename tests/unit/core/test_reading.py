"""YAML is read safely, with its faults in our own words."""

from pathlib import Path

import pytest
import yaml

from ensdistill.errors import ConfigError
from ensdistill.reading import Lines, parse_mapping, parse_yaml, read_yaml


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml: settings are a mapping .* this holds nothing"):
        parse_mapping(text, "a.yaml")


@pytest.mark.parametrize(("text", "kind"), [("- 1\n- 2", "list"), ("hello", "text"), ("3", "number")])
def test_yaml_that_is_no_mapping_is_refused(text: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"this holds a {kind}"):
        parse_mapping(text, "a.yaml")


@pytest.mark.parametrize("text", ["1: 2", "null: 2", "true: 2"])
def test_names_that_are_no_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="mapping of names"):
        parse_mapping(text, "a.yaml")


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system", "!mine"]
)
def test_tags_that_build_objects_are_refused_with_their_line(tag: str, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(ConfigError, match=r"a\.yaml, line 2: .*no objects are built"):
        parse_mapping(f"seed: 1\nx: {tag} ['touch {mark}']\n", "a.yaml")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3", 3), ("x:\n  a: 1\n  a: 1", 3), ("x: {a: 1, a: 2}", 1), ("- {a: 1}\n- {b: 1, b: 2}", 2)],
)
def test_name_written_twice_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"a\.yaml, line {line}: [ab] is written twice"):
        parse_yaml(text, "a.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e+2", 150.0), (".5e1", 5.0), ("1.e2", 100.0), ("+1e0", 1.0)],
)
def test_numbers_with_an_exponent_are_numbers(text: str, value: float) -> None:
    parsed = parse_yaml(f"a: {text}", "a.yaml")["a"]
    assert isinstance(parsed, float)
    assert parsed == value


@pytest.mark.parametrize("text", ["1e", "e3", "x1e-3", "1e-3x", "'1e-3'"])
def test_texts_that_only_look_like_numbers_stay_texts(text: str) -> None:
    assert parse_yaml(f"a: {text}", "a.yaml")["a"] == text.strip("'")


def test_reading_leaves_yamls_own_loader_as_it_is() -> None:
    assert yaml.safe_load("a: 1e-3\nb: 1\nb: 2") == {"a": "1e-3", "b": 2}


def test_broken_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml, line 2"):
        parse_mapping("a: 1\nb: ]\n", "a.yaml")


def test_merge_keys_and_anchors_work_as_in_any_yaml() -> None:
    text = "base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\n"
    assert parse_mapping(text, "a.yaml") == yaml.safe_load(text)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read_yaml(tmp_path / "a.yaml")


def test_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        read_yaml(tmp_path)


def test_all_bad_names_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_mapping("a: {b: 1, b: 2}\n3: x\n[c]: y\na: 4\n", "a.yaml")
    assert [fault.split(" ")[2:4] for fault in str(caught.value).splitlines()] == [
        ["1:", "b"],
        ["2:", "3:"],
        ["3:", "this:"],
        ["4:", "a"],
    ]


TEXT = """\
a: 1
b: &b
  c: {d: 2,
    e: 3}
  f.g: 4
  f.g.h: 5
l:
- x
-
  y: 6
m:
  <<: *b
  n: 7
"""


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a", 1),
        ("b.c.d", 3),
        ("b.c.e", 4),
        ("b.f.g", 5),  # a name with a dot
        ("b.f.g.h", 6),  # the longest one that fits
        ("b.f.g.i", 5),
        ("b.f", 5),  # what is written is deeper
        ("l.0", 8),
        ("l.1.y", 10),
        ("m.n", 13),
        # what is not there has the place of what it should be in
        ("a.x", 1),
        ("b.x.y", 2),
        ("b.c.x", 3),
        ("l.2", 7),
        ("l.y", 7),
        ("m.c", 11),
        ("x", None),
        ("", None),
    ],
)
def test_the_line_of_a_name_is_that_of_its_longest_beginning(name: str, line: int | None) -> None:
    assert Lines(TEXT).of(name) == line


def test_an_empty_text_has_no_lines() -> None:
    assert Lines("# nothing").of("a") is None


def test_aliases_that_double_themselves_cost_no_time() -> None:
    doubled = "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(60))
    assert Lines(f"a0: &a0 [1]\n{doubled}").of("a60.1.0") == 59  # where a58 is written
