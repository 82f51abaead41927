"""YAML text to plain values: safe, no key written twice, faults with their line."""

import re
from pathlib import Path
from typing import Any

import yaml

from ensdistill.errors import ConfigError

Tree = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice and reads 1e-3 as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in written]
        for n, key in enumerate(keys):
            if key in keys[:n]:
                line = written[n].start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    problem=f"{key} is written twice", problem_mark=_mark(node, line)
                )
        return super().construct_mapping(node, deep)


def _mark(node: yaml.Node, line: int) -> yaml.Mark:
    mark = node.start_mark
    return yaml.Mark(mark.name, mark.index, line - 1, 0, None, 0)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back: a text that looks like 1e3 gets its quotes."""


for _class in (_Loader, _Dumper):
    # add_implicit_resolver gives each class a table of its own; those of PyYAML stay as they are
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def to_yaml_text(tree: Tree) -> str:
    """Plain values as YAML, in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. Raises ConfigError with the line at fault; tags that build objects are refused."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        if isinstance(error, yaml.constructor.ConstructorError) and "tag" in problem:
            problem = f"{problem}: only plain values are read, no objects are built"
        raise ConfigError(f"{where}{line}: {problem}") from error


def parse_mapping(text: str, where: str) -> Tree:
    """The settings of a YAML text. Raises ConfigError if it is empty or not a mapping of names."""
    value = parse_yaml(text, where)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise ConfigError(f"{where}: settings are a mapping of names to values, this holds {found}")
    return value


def read_yaml(path: str | Path) -> Tree:
    """The settings of a YAML file. Raises ConfigError if it cannot be read."""
    try:
        return parse_mapping(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"{path}: {reason}") from error
