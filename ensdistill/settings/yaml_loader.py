"""Parses YAML 1.2 into plain values: executes no code, rejects duplicate names, reports errors with line numbers."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver
from ruamel.yaml.tag import Tag

from ensdistill.errors import ConfigError

YamlDict = dict[str, Any]

_CORE = "tag:yaml.org,2002:"
_MERGE = f"{_CORE}merge"
_MAX_VALUES = 100_000  # maximum number of values in one file; an alias counts as all values that it repeats
_PLAIN = {"str": "text", "int": "number", "float": "number", "bool": "truth value"}


def _int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(text.replace(".", "", 1) if text.lower().endswith((".inf", ".nan")) else text)


# The core schema of YAML 1.2 (section 10.3.2) defines how unquoted text is converted to values. YAML 1.1 has other
# rules: it converts 010 to 8, 1:30 to 90, yes to true, and 2020-01-01 to a date. Here, 010 becomes 10, and the other
# three remain text. Merge keys (<<) are supported as in YAML 1.1.
_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {
    f"{_CORE}null": (r"null|Null|NULL|~|", lambda text: None),
    f"{_CORE}bool": (r"true|True|TRUE|false|False|FALSE", lambda text: {"true": True, "false": False}[text.lower()]),
    f"{_CORE}int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _int),
    f"{_CORE}float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        _float,
    ),
    _MERGE: ("<<", str),
    f"{_CORE}str": (r"(?s:.*)", str),
}
_PATTERNS = [(tag, re.compile(pattern)) for tag, (pattern, _) in _SCALARS.items()]

# Text that YAML 1.1 converts to another type. It is written in quotes, so that every parser returns the same value.
_YAML_1_1 = re.compile(
    r"y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF|=|[-+]?[0-9.][0-9_.:xXbBoOa-fA-F+-]*|\d{4}-\d\d?-\d\d?.*"
)

# Replacements for parser messages, keyed by a pattern that matches the message. {0} is the first group of the pattern,
# and {line} is the first line of the invalid construct.
_HELP = {
    r"found character '\\t'|found a tab character": "a tab; indent with spaces",
    r"found character ('.+') that cannot start": "text cannot begin with {0}; put it in quotes",
    r"mapping values are not allowed": "`name: value` is not allowed; check the indentation, or put text that "
    "contains ': ' in quotes",
    r"could not find expected ':'": "the name on line {line} has no ': value'",
    r"expected <block end>": "the indentation differs from that of the lines above",
    r"expected ',' or '(.)'": "the bracket on line {line} is not closed by {0}",
    r"found unexpected end of stream": "the quote on line {line} is not closed",
    r"found undefined alias '(.+)'": "the alias *{0} is not defined; put text that begins with * in quotes",
    r"found unknown escape character '(.+)'": "unknown escape \\{0} in double quotes; use single quotes",
    r"but found another document": "a second document starts here; a file must contain only one",
    r"special characters are not allowed": "a control character; remove it",
    r"maximum recursion depth": "brackets are nested too deeply",
}


class _Resolver(BaseResolver):
    """Resolves scalar tags by the core schema only, regardless of the version that a file declares."""

    def __init__(self, version: Any = None, loader: Any = None) -> None:
        super().__init__(loader)
        self._loader_version = version

    @property
    def processing_version(self) -> tuple[int, int]:
        """Version of the YAML syntax."""
        return 1, 2

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Returns the tag of a node; for a plain scalar, the first tag whose pattern matches."""
        if kind is ScalarNode and implicit[0]:
            return Tag(suffix=next(tag for tag, pattern in _PATTERNS if pattern.fullmatch(value)))
        return super().resolve(kind, value, (False, False))


class _WritingResolver(_Resolver):
    """Resolver that gives a separate tag to text that YAML 1.1 would convert, so that the emitter quotes this text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Returns the tag of a node."""
        tag = super().resolve(kind, value, implicit)
        if kind is ScalarNode and implicit[0] and str(tag) == f"{_CORE}str" and _YAML_1_1.fullmatch(value):
            return Tag(suffix=f"{_CORE}value")
        return tag


class _Representer(SafeRepresenter):
    """Writes floats in a form that YAML 1.1 and 1.2 read as numbers: 1.0e-05, because 1e-05 is text in YAML 1.1."""

    def represent_float(self, data: float) -> Any:
        """Returns the node that represents a float."""
        node = super().represent_float(data)
        if "e" in node.value and "." not in node.value:
            node.value = node.value.replace("e", ".0e")
        return node


_Representer.add_representer(float, _Representer.represent_float)


class _Values:
    """Converts the nodes of one YAML document to plain values and collects all errors."""

    def __init__(self) -> None:
        self.errors: dict[tuple[int, str], None] = {}  # ordered and without duplicates from repeated aliases
        self._made: dict[Node, tuple[Any, int]] = {}  # value of each node, and the number of values in it
        self._open: set[Node] = set()

    def of(self, node: Node) -> Any:
        """Returns the value of a node."""
        return self._sized(node)[0]

    def _sized(self, node: Node) -> tuple[Any, int]:
        if node in self._open:
            self._note(node, f"the alias *{node.anchor} refers to a value that contains it; remove it")
            return None, 1
        if node not in self._made:
            self._open.add(node)
            self._made[node] = self._make(node)
            self._open.remove(node)
        return self._made[node]

    def _make(self, node: Node) -> tuple[Any, int]:
        kind = str(node.tag)
        if isinstance(node, ScalarNode) and kind in _SCALARS:
            return self._scalar(node, _SCALARS[kind][1]), 1
        if isinstance(node, SequenceNode) and kind == f"{_CORE}seq":
            parts = [self._sized(part) for part in node.value]
            return [value for value, _ in parts], self._size(node, (size for _, size in parts))
        if isinstance(node, MappingNode) and kind == f"{_CORE}map":
            pairs = {name: self._sized(part) for name, part in self._pairs(node).items()}
            return {name: value for name, (value, _) in pairs.items()}, self._size(node, (n for _, n in pairs.values()))
        self._note(node, f"{kind.replace(_CORE, '!!')}: only plain values are allowed; remove the tag")
        return None, 1

    def _scalar(self, node: ScalarNode, convert: Callable[[str], Any]) -> Any:
        try:
            return convert(node.value)
        except (ValueError, KeyError):  # an explicit tag that does not match, or a number with more than 4,300 digits
            text = node.value if len(node.value) < 40 else f"{node.value[:20]}... ({len(node.value)} characters)"
            self._note(node, f"{text} cannot be read as !!{str(node.tag).removeprefix(_CORE)}")
            return None

    def _size(self, node: Node, sizes: Iterator[int]) -> int:
        size = 1 + sum(sizes)
        if size > _MAX_VALUES:
            self._note(node, f"must have at most {_MAX_VALUES:,} values, including those that aliases repeat")
            return 1
        return size

    def _pairs(self, node: MappingNode) -> dict[str, Node]:
        """Returns names and value nodes; records and skips an invalid name, so that the rest is also checked."""
        first: dict[str, int] = {}
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, value in node.value:
            name, line = self.of(key), _line(key.start_mark)
            if not isinstance(name, str):
                self._note(key, f"{_written(key)}: names in a mapping must be strings; put this name in quotes")
            elif name in first:
                self._note(key, f"{name} is given twice (first on line {first[name]})")
            elif key.tag == _MERGE:
                first[name], merged = line, self._merged(value)
            else:
                first[name], own[name] = line, value
        return merged | own

    def _merged(self, node: Node) -> dict[str, Node]:
        """Returns names and value nodes that `<<` adds from mappings; earlier mappings take precedence."""
        sources = list(node.value) if isinstance(node, SequenceNode) else [node]
        found: dict[str, Node] = {}
        for source in reversed(sources):
            if not isinstance(source, MappingNode) or source in self._open:
                self._note(source, "the value of << must be a mapping or a list of mappings")
                continue
            self._open.add(source)
            found |= self._pairs(source)
            self._open.remove(source)
        return found

    def _note(self, node: Node, error: str) -> None:
        self.errors[_line(node.start_mark), error] = None


class LineIndex:
    """Line numbers of the settings in a YAML document."""

    def __init__(self, text: str) -> None:
        """Creates the index of a YAML document.

        Args:
            text: YAML text that `parse_yaml` accepts.
        """
        self._root = _compose(text)

    def of(self, name: str) -> int | None:
        """Returns the line of a setting.

        Args:
            name: Dotted name; `a.0` is the first value of the list `a`. The document may also contain dotted names.

        Returns:
            Line number of the setting, from 1. If the setting does not exist, the line number of the longest existing
            prefix of its name; None if no prefix exists.
        """
        line, node, parts = None, self._root, name.split(".")
        while parts and (found := _find(node, parts)):
            line, node, parts = found
        return line


def _find(node: Node | None, parts: list[str]) -> tuple[int, Node, list[str]] | None:
    """Finds the longest existing prefix of a path; returns the prefix's line and value, and the remaining path."""
    if isinstance(node, SequenceNode) and parts[0].isdigit() and int(parts[0]) < len(node.value):
        value = node.value[int(parts[0])]
        return _line(value.start_mark), value, parts[1:]
    pairs = node.value if isinstance(node, MappingNode) else []
    for n in range(len(parts), 0, -1):
        for key, value in pairs:
            if key.value == ".".join(parts[:n]):
                return _line(key.start_mark), value, parts[n:]
    for key, value in pairs:
        if str(key.value).startswith(".".join([*parts, ""])):
            return _line(key.start_mark), value, []
    return None


def _line(mark: Any) -> int:
    return int(mark.line) + 1


def _written(node: Node) -> str:
    return str(node.value) if isinstance(node, ScalarNode) else "this"


def _compose(text: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    yaml.composer.warn_double_anchors = False  # an alias refers to the last anchor with its name
    root: Node | None = yaml.compose(text)
    return root


def to_yaml_text(tree: YamlDict) -> str:
    """Returns plain values as YAML text that YAML 1.1 and YAML 1.2 parsers read identically.

    Args:
        tree: Plain values; their order is kept.
    """
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Representer = _WritingResolver, _Representer
    yaml.allow_unicode = yaml.default_flow_style = yaml.sort_base_mapping_type_on_output = False
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()


def parse_yaml(text: str, where: str) -> Any:
    """Returns the value of a YAML document.

    Args:
        text: The text.
        where: Origin of the text (a file or an option); error messages start with it.

    Raises:
        ConfigError: The text is not valid YAML, or contains tags that create objects; the message states the line
            numbers.
    """
    values = _Values()
    try:
        root = _compose(text)
        value = None if root is None else values.of(root)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}{_described(error, text)}") from error
    if values.errors:
        raise ConfigError([f"{where}, line {line}: {message}" for line, message in sorted(values.errors)])
    return value


def _described(error: Exception, text: str) -> str:
    """Returns the line, problem and fix for a parser error, in the form `, line 3: ...`."""
    mark, before = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    if isinstance(error, ReaderError):
        line = f", line {text.count(chr(10), 0, error.position) + 1}"
    else:
        line = f", line {_line(mark)}" if mark else ""
    for pattern, words in _HELP.items():
        if found := re.search(pattern, problem):
            return f"{line}: " + words.format(*found.groups(), line=_line(before) if before else "")
    return f"{line}: {problem}"


def parse_mapping(text: str, where: str) -> YamlDict:
    """Returns the settings in a YAML document.

    Args:
        text: The text.
        where: Origin of the text (a file or an option); error messages start with it.

    Raises:
        ConfigError: The text is empty, invalid, or not a mapping from names to values.
    """
    value = parse_yaml(text, where)
    if not isinstance(value, dict):
        name = type(value).__name__
        found = "nothing" if value is None else f"a {_PLAIN.get(name, name)}"
        raise ConfigError(f"{where}: expected a mapping of names to values, found {found}")
    return value


def read_text(path: str | Path) -> str:
    """Returns the text of a UTF-8 file.

    Args:
        path: The file.

    Raises:
        ConfigError: The file cannot be read or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}{_not_utf8(error)}") from error
    except (OSError, ValueError) as error:  # ValueError: not a valid file name
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _not_utf8(error: UnicodeDecodeError) -> str:
    """Returns the end of the message about a file that is not UTF-8: the invalid line, or the actual format."""
    raw = error.object
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return " is UTF-16. Save it as UTF-8."
    if b"\0" in raw:
        return " is not a text file"
    line = raw.count(b"\n", 0, error.start) + 1
    return f", line {line}: byte 0x{raw[error.start]:02x} is not UTF-8. Save the file as UTF-8."


def read_yaml(path: str | Path) -> YamlDict:
    """Returns the settings in a YAML file.

    Args:
        path: The file.

    Raises:
        ConfigError: The file cannot be read, or is not a mapping from names to values.
    """
    return parse_mapping(read_text(path), str(path))
