"""YAML text to plain values: safe, no key written twice, faults with their line."""

import re
from pathlib import Path
from typing import Any

import yaml

from ensdistill.errors import ConfigError

Tree = dict[str, Any]

_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = {"str": "text", "int": "number", "float": "number", "bool": "truth value"}

# What PyYAML says (as a pattern), and what helps; {0} is what the pattern caught, {line} where the matter began.
_HELP = {
    r"found character '\\t'": "a tab; indent with spaces",
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
    r"could not determine a constructor for the tag (.+)": "{0}: only plain values are read, no objects are built",
}


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number, as YAML 1.2 does, and notes names that are none or written twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[tuple[int, str]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            self._look_at_names(node)
        return super().construct_mapping(node, deep)

    def _look_at_names(self, node: yaml.MappingNode) -> None:
        """Notes every bad name of a mapping and leaves it out, so that the rest is looked at too."""
        first: dict[str, int] = {}
        good = []
        for key, value in node.value:
            if key.tag == _MERGE:
                good.append((key, value))
                continue
            name, line = self.construct_object(key, deep=True), _line(key.start_mark)
            if not isinstance(name, str):
                self.faults.append((line, f"{_written(key)}: names in a mapping of names are texts; put it in quotes"))
            elif name in first:
                self.faults.append((line, f"{name} is written twice (line {first[name]} has it already)"))
            else:
                first[name] = line
                good.append((key, value))
        node.value = good


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back: a text that looks like 1e3 gets its quotes."""


for _class in (_Loader, _Dumper):
    # add_implicit_resolver gives each class a table of its own; those of PyYAML stay as they are
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


class Lines:
    """Where the settings of a YAML text are written."""

    def __init__(self, text: str) -> None:
        """text: one that `parse_yaml` reads."""
        self._root = yaml.compose(text, Loader=_Loader)

    def of(self, name: str) -> int | None:
        """The line of a dotted name, or of the longest beginning of it that is there; None if nothing of it is.

        Names in the text may be dotted themselves; `a.0` is the first value of a list.
        """
        line, node, parts = None, self._root, name.split(".")
        while parts and (found := _find(node, parts)):
            line, node, parts = found
        return line


def _find(node: yaml.Node | None, parts: list[str]) -> tuple[int, yaml.Node, list[str]] | None:
    """Line and value of the longest beginning of a path in this node, and what is left of the path."""
    if isinstance(node, yaml.SequenceNode) and parts[0].isdigit() and int(parts[0]) < len(node.value):
        value = node.value[int(parts[0])]
        return _line(value.start_mark), value, parts[1:]
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
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


def _written(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "this"


def to_yaml_text(tree: Tree) -> str:
    """Plain values as YAML, in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. Raises ConfigError with the lines at fault; tags that build objects are refused."""
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}{_in_our_words(error, text)}") from error
    if loader.faults:
        raise ConfigError([f"{where}, line {line}: {fault}" for line, fault in sorted(loader.faults)])
    return value


def _in_our_words(error: Exception, text: str) -> str:
    """`, line 3: what is wrong and what helps`."""
    mark, before = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    if isinstance(error, yaml.reader.ReaderError):
        line = f", line {text.count(chr(10), 0, error.position) + 1}"
    else:
        line = f", line {_line(mark)}" if mark else ""
    for pattern, words in _HELP.items():
        if found := re.search(pattern, problem):
            return f"{line}: " + words.format(*found.groups(), line=_line(before) if before else "")
    return f"{line}: {problem}"


def parse_mapping(text: str, where: str) -> Tree:
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
    except (OSError, ValueError) as error:  # ValueError: other bytes than text, or no name for a file
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from error


def read_yaml(path: str | Path) -> Tree:
    """The settings of a YAML file. Raises ConfigError if it cannot be read."""
    return parse_mapping(read_text(path), str(path))
