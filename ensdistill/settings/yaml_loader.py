"""YAML 1.2 text to plain values: nothing is executed, no name is written twice, errors have their line."""

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
_MOST = 100_000  # values of a file, each alias counted with all that it stands for
_PLAIN = {"str": "text", "int": "number", "float": "number", "bool": "truth value"}


def _int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(text.replace(".", "", 1) if text.lower().endswith((".inf", ".nan")) else text)


# The core schema of YAML 1.2 (section 10.3.2): how a plain text becomes a value. What YAML 1.1 reads otherwise (010 as
# 8, 1:30 as 90, yes as true, 2020-01-01 as a date) is a decimal number or stays a text. Merge keys are of YAML 1.1.
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

# Texts that YAML 1.1 takes for something else: written in quotes, so that any reader reads the same.
_ELSEWHERE = re.compile(
    r"y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF|=|[-+]?[0-9.][0-9_.:xXbBoOa-fA-F+-]*|\d{4}-\d\d?-\d\d?.*"
)

# What the parser reports (as a pattern), and what helps; {0} is what the pattern caught, {line} where it began.
_HELP = {
    r"found character '\\t'|found a tab character": "a tab; indent with spaces",
    r"found character ('.+') that cannot start": "a text cannot begin with {0}; put it in quotes",
    r"mapping values are not allowed": "a name and value where none can be; check the indentation, or put a text that "
    "holds ': ' in quotes",
    r"could not find expected ':'": "the name in line {line} has no ': value'",
    r"expected <block end>": "indented unlike the lines above it",
    r"expected ',' or '(.)'": "the bracket of line {line} is not closed by {0}",
    r"found unexpected end of stream": "the quote of line {line} is not closed",
    r"found undefined alias '(.+)'": "*{0} stands for nothing in this file; put a text that begins with * in quotes",
    r"found unknown escape character '(.+)'": "\\{0} is no character in double quotes; use single quotes",
    r"but found another document": "a second document begins here; a file holds one",
    r"special characters are not allowed": "a character that is no text",
    r"maximum recursion depth": "brackets within brackets without end",
}


class _Resolver(BaseResolver):
    """Tags of scalars by the core schema alone, whatever version a file names."""

    def __init__(self, version: Any = None, loader: Any = None) -> None:
        super().__init__(loader)
        self._loader_version = version

    @property
    def processing_version(self) -> tuple[int, int]:
        """The version of the syntax."""
        return 1, 2

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0]:
            return Tag(suffix=next(tag for tag, pattern in _PATTERNS if pattern.fullmatch(value)))
        return super().resolve(kind, value, (False, False))


class _WritingResolver(_Resolver):
    """Gives a text that only YAML 1.1 takes for something else a tag of its own, by which it gets quotes."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        if kind is ScalarNode and implicit[0] and str(tag) == f"{_CORE}str" and _ELSEWHERE.fullmatch(value):
            return Tag(suffix=f"{_CORE}value")
        return tag


class _Representer(SafeRepresenter):
    """Floats as both versions of YAML read them: 1.0e-05, which is a text in YAML 1.1 without its point."""

    def represent_float(self, data: float) -> Any:
        node = super().represent_float(data)
        if "e" in node.value and "." not in node.value:
            node.value = node.value.replace("e", ".0e")
        return node


_Representer.add_representer(float, _Representer.represent_float)


class _Values:
    """Makes plain values of the nodes of one text, and notes all that is wrong with them."""

    def __init__(self) -> None:
        self.faults: dict[tuple[int, str], None] = {}  # in order; what an alias repeats is noted once
        self._made: dict[Node, tuple[Any, int]] = {}  # values and their sizes, of aliases too
        self._open: set[Node] = set()

    def of(self, node: Node) -> Any:
        """The value of a node."""
        return self._sized(node)[0]

    def _sized(self, node: Node) -> tuple[Any, int]:
        if node in self._open:
            self._note(node, f"*{node.anchor} stands for a value that it is a part of")
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
        self._note(node, f"{kind.replace(_CORE, '!!')}: only plain values are read, no objects are built")
        return None, 1

    def _scalar(self, node: ScalarNode, convert: Callable[[str], Any]) -> Any:
        try:
            return convert(node.value)
        except (ValueError, KeyError):  # its tag was given, or it is a number of more than 4,300 digits
            text = node.value if len(node.value) < 40 else f"{node.value[:20]}... ({len(node.value)} characters)"
            self._note(node, f"{text} cannot be read as !!{str(node.tag).removeprefix(_CORE)}")
            return None

    def _size(self, node: Node, sizes: Iterator[int]) -> int:
        size = 1 + sum(sizes)
        if size > _MOST:
            self._note(node, f"more than {_MOST:,} values, counted with all that aliases stand for")
            return 1
        return size

    def _pairs(self, node: MappingNode) -> dict[str, Node]:
        """Names and values; a bad name is noted and left out, so that the rest is looked at too."""
        first: dict[str, int] = {}
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, value in node.value:
            name, line = self.of(key), _line(key.start_mark)
            if not isinstance(name, str):
                self._note(key, f"{_written(key)}: names in a mapping of names are texts; put it in quotes")
            elif name in first:
                self._note(key, f"{name} is written twice (line {first[name]} has it already)")
            elif key.tag == _MERGE:
                first[name], merged = line, self._merged(value)
            else:
                first[name], own[name] = line, value
        return merged | own

    def _merged(self, node: Node) -> dict[str, Node]:
        """What `<<` adds: the names of a mapping, or of several, of which an earlier one counts more."""
        sources = list(node.value) if isinstance(node, SequenceNode) else [node]
        found: dict[str, Node] = {}
        for source in reversed(sources):
            if not isinstance(source, MappingNode) or source in self._open:
                self._note(source, "<< adds the names of a mapping, and this is none")
                continue
            self._open.add(source)
            found |= self._pairs(source)
            self._open.remove(source)
        return found

    def _note(self, node: Node, fault: str) -> None:
        self.faults[_line(node.start_mark), fault] = None


class LineIndex:
    """Where the settings of a YAML text are written."""

    def __init__(self, text: str) -> None:
        """text: one that `parse_yaml` reads."""
        self._root = _compose(text)

    def of(self, name: str) -> int | None:
        """The line of a dotted name, or of the longest beginning of it that is there; None if nothing of it is.

        Names in the text may be dotted themselves; `a.0` is the first value of a list.
        """
        line, node, parts = None, self._root, name.split(".")
        while parts and (found := _find(node, parts)):
            line, node, parts = found
        return line


def _find(node: Node | None, parts: list[str]) -> tuple[int, Node, list[str]] | None:
    """Line and value of the longest beginning of a path in this node, and what is left of the path."""
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
    yaml.composer.warn_double_anchors = False  # allowed: an alias stands for the last one before it
    root: Node | None = yaml.compose(text)
    return root


def to_yaml_text(tree: YamlDict) -> str:
    """Plain values as YAML, in their order, such that readers of YAML 1.1 and 1.2 read the same."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Representer = _WritingResolver, _Representer
    yaml.allow_unicode = yaml.default_flow_style = yaml.sort_base_mapping_type_on_output = False
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. Raises ConfigError with the lines at fault; tags that build objects are refused."""
    values = _Values()
    try:
        root = _compose(text)
        value = None if root is None else values.of(root)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}{_in_our_words(error, text)}") from error
    if values.faults:
        raise ConfigError([f"{where}, line {line}: {fault}" for line, fault in sorted(values.faults)])
    return value


def _in_our_words(error: Exception, text: str) -> str:
    """`, line 3: what is wrong and what helps`."""
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
    """The settings of a YAML text. Raises ConfigError if it is empty or not a mapping of names."""
    value = parse_yaml(text, where)
    if not isinstance(value, dict):
        name = type(value).__name__
        found = "nothing" if value is None else f"a {_PLAIN.get(name, name)}"
        raise ConfigError(f"{where}: settings are a mapping of names to values, this holds {found}")
    return value


def read_text(path: str | Path) -> str:
    """The text of a file. Raises ConfigError if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}{_not_utf8(error)}") from error
    except (OSError, ValueError) as error:  # ValueError: no name for a file
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _not_utf8(error: UnicodeDecodeError) -> str:
    """Where a text is not UTF-8, and what it is instead."""
    raw = error.object
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ": is UTF-16. Save it as UTF-8."
    if b"\0" in raw:
        return ": not a text file"
    line = raw.count(b"\n", 0, error.start) + 1
    return f", line {line}: byte 0x{raw[error.start]:02x} is not UTF-8. Save the file as UTF-8."


def read_yaml(path: str | Path) -> YamlDict:
    """The settings of a YAML file. Raises ConfigError if it cannot be read."""
    return parse_mapping(read_text(path), str(path))
