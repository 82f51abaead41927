"""YAML is read safely, with the error messages of this project."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ensdistill.errors import ConfigError
from ensdistill.settings.yaml_loader import LineIndex, parse_mapping, parse_yaml, read_yaml, to_yaml_text


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_yaml_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml: expected a mapping of names to values, found nothing"):
        parse_mapping(text, "a.yaml")


@pytest.mark.parametrize(("text", "kind"), [("- 1\n- 2", "list"), ("hello", "text"), ("3", "number")])
def test_yaml_that_is_not_a_mapping_is_rejected(text: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"found a {kind}"):
        parse_mapping(text, "a.yaml")


@pytest.mark.parametrize("text", ["1: 2", "null: 2", "true: 2"])
def test_names_that_are_not_strings_are_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="names in a mapping must be strings"):
        parse_mapping(text, "a.yaml")


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system", "!mine"]
)
def test_tags_that_create_objects_are_rejected_and_the_error_states_the_line(tag: str, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(ConfigError, match=r"a\.yaml, line 2: .*only plain values are allowed"):
        parse_mapping(f"seed: 1\nx: {tag} ['touch {mark}']\n", "a.yaml")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3", 3), ("x:\n  a: 1\n  a: 1", 3), ("x: {a: 1, a: 2}", 1), ("- {a: 1}\n- {b: 1, b: 2}", 2)],
)
def test_a_name_given_twice_is_rejected_and_the_error_states_the_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"a\.yaml, line {line}: [ab] is given twice"):
        parse_yaml(text, "a.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e+2", 150.0), (".5e1", 5.0), ("1.e2", 100.0), ("+1e0", 1.0)],
)
def test_numbers_with_an_exponent_are_read_as_numbers(text: str, value: float) -> None:
    parsed = parse_yaml(f"a: {text}", "a.yaml")["a"]
    assert isinstance(parsed, float)
    assert parsed == value


@pytest.mark.parametrize("text", ["1e", "e3", "x1e-3", "1e-3x", "'1e-3'"])
def test_strings_that_only_look_like_numbers_stay_strings(text: str) -> None:
    assert parse_yaml(f"a: {text}", "a.yaml")["a"] == text.strip("'")


# The tables of YAML 1.2.2, section 10.3.2, and features of YAML 1.1 that 1.2 does not have.
PLAIN_SCALARS = [
    ("010", 10),
    ("-0100", -100),
    ("08", 8),
    ("+12", 12),
    ("0o17", 15),
    ("0xfF", 255),
    ("12e03", 12000.0),
    ("1.", 1.0),
    ("-.5", -0.5),
    (".inf", float("inf")),
    ("-.INF", -float("inf")),
    ("true", True),
    ("FALSE", False),
    ("~", None),
    ("", None),
    ("Null", None),
    *[
        (text, text)
        for text in ("1:30", "1:30:15.5", "1_000", "0b11", "0o8", "-0x1", "yes", "NO", "on", "Off", "y", "n")
    ],
    *[
        (text, text)
        for text in ("2020-01-01", "2001-12-14 21:59:43", "=", "tRue", "nUll", "1.2.3", "1,5", "+", ".", "e3")
    ],
]


@pytest.mark.parametrize(("text", "value"), PLAIN_SCALARS)
@pytest.mark.parametrize("heading", ["", "%YAML 1.1\n---\n"])
def test_plain_scalars_are_read_with_the_core_schema_of_yaml_1_2(heading: str, text: str, value: Any) -> None:
    parsed = parse_yaml(f"{heading}a: {text}", "a.yaml")["a"]
    assert (type(parsed), parsed) == (type(value), value)


@pytest.mark.parametrize(
    "text", ["!!timestamp 2020-01-01", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!bool yes"]
)
def test_values_of_types_that_no_setting_accepts_are_rejected_and_the_error_states_the_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml, line 2: "):
        parse_yaml(f"b: 1\na: {text}", "a.yaml")


@pytest.mark.parametrize("value", [*[text for text, _ in PLAIN_SCALARS], "<<", "a: b", "x\ny", "\u00e9\udcff", 1e-5])
def test_written_values_are_read_back_identically_as_yaml_1_2_and_1_1(value: Any) -> None:
    tree = {"a": [value], "b": {"y": value}}
    text = to_yaml_text(tree)
    assert parse_yaml(text, "a.yaml") == tree
    assert yaml.safe_load(text) == tree  # PyYAML reads YAML 1.1


@pytest.mark.parametrize("text", ["\ufeffa: 1\nb: 2\n", "a: 1\r\nb: 2\r\n", "a: 1\rb: 2", "--- # x\na: 1\nb: 2\n...\n"])
def test_byte_order_marks_and_line_endings_of_other_systems_are_not_part_of_values(text: str) -> None:
    assert parse_yaml(text, "a.yaml") == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["a:\n\tb: 1", "a: 1\n\tb: 2", "a:\n  b: 1\n\tc: 1"])
def test_a_tab_in_the_indentation_is_reported(text: str) -> None:
    with pytest.raises(ConfigError, match=r"line \d: a tab; indent with spaces"):
        parse_yaml(text, "a.yaml")


@pytest.mark.parametrize("text", ["a: &x [*x]", "&x {a: *x}", "a: &x {b: 1, <<: *x}", "a: &x {b: {c: [1, *x]}}"])
def test_a_recursive_alias_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml, line 1"):
        parse_yaml(text, "a.yaml")


def test_aliases_that_expand_to_millions_of_values_are_rejected() -> None:
    doubled = "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(60))
    with pytest.raises(ConfigError, match=r"line 17: must have at most 100,000 values"):
        parse_yaml(f"a0: &a0 [1]\n{doubled}", "a.yaml")


def test_earlier_merged_mappings_take_precedence_and_explicit_names_override_all_of_them() -> None:
    text = "a: &a {x: 1, y: 1, z: 1}\nb: &b {x: 2, y: 2, w: 2}\nc: {z: 3, <<: [*a, *b]}\n"
    assert parse_yaml(text, "a.yaml")["c"] == yaml.safe_load(text)["c"] == {"x": 1, "y": 1, "z": 3, "w": 2}


def test_an_alias_refers_to_the_most_recent_definition_of_a_repeated_anchor(recwarn: pytest.WarningsRecorder) -> None:
    assert parse_yaml("a: &x 1\nb: &x 2\nc: *x", "a.yaml")["c"] == 2
    assert not recwarn.list


def test_malformed_yaml_is_rejected_and_the_error_states_the_line() -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml, line 2"):
        parse_mapping("a: 1\nb: ]\n", "a.yaml")


def test_merge_keys_and_anchors_work_as_in_other_yaml_parsers() -> None:
    text = "base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\n"
    assert parse_mapping(text, "a.yaml") == yaml.safe_load(text)


def test_a_file_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read_yaml(tmp_path / "a.yaml")


def test_a_folder_instead_of_a_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        read_yaml(tmp_path)


def test_all_invalid_names_are_reported_together() -> None:
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
        ("b.f.g", 5),  # a dotted name
        ("b.f.g.h", 6),  # the longest matching prefix
        ("b.f.g.i", 5),
        ("b.f", 5),  # the file has a deeper name
        ("l.0", 8),
        ("l.1.y", 10),
        ("m.n", 13),
        # a missing name has the line of its parent
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
def test_the_line_reported_for_an_unknown_name_is_that_of_its_longest_known_prefix(name: str, line: int | None) -> None:
    assert LineIndex(TEXT).of(name) == line


def test_the_line_index_of_a_file_without_settings_is_empty() -> None:
    assert LineIndex("# nothing").of("a") is None


def test_the_line_index_is_fast_for_exponentially_nested_aliases() -> None:
    doubled = "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(60))
    assert LineIndex(f"a0: &a0 [1]\n{doubled}").of("a60.1.0") == 59  # the line of a58
