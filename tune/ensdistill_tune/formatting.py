"""Short names of settings and short forms of values, shared by tables, trial names, figures and MLflow."""

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 100  # maximum width of tables and wrapped lines, in columns


def short_name(setting: str) -> str:
    """Returns a short name: `step_size` for `perturbation.step_size`, `averaging` for `averaging.kind`."""
    parts = setting.split(".")
    return parts[-2] if parts[-1] == "kind" and len(parts) > 1 else parts[-1]


def short_value(value: Any) -> str:
    """Returns a value as a short string, such as `0.0123`, `ema`, or `resnet(depth=8)` for a block.

    A file path inside a block is shortened to the file name.
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        inner = [f"{name}={short_value(_without_folder(one))}" for name, one in value.items() if name != "kind"]
        kind = str(value.get("kind", ""))
        return f"{kind}({', '.join(inner)})" if inner or not kind else kind
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(short_value, value))}]"
    return str(value)


def _without_folder(value: Any) -> Any:
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value


def is_block(value: Any) -> bool:
    """Returns whether a value is a mapping or a list."""
    return isinstance(value, Mapping | list | tuple)


def fold(text: str, indent: int, width: int = WIDTH) -> str:
    """Wraps a line between words, so that each part fits into `width` columns.

    Args:
        text: The line.
        indent: Number of spaces before each part except the first.
        width: Number of columns; a longer word, such as a path, is not split.
    """
    hanging = " " * indent
    return textwrap.fill(text, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)


def duration(seconds: float) -> str:
    """Returns a duration as a string, such as `0.053 s`, `12 s`, `4 min`, `3.5 h` or `2.1 days`.

    Args:
        seconds: The duration in seconds.
    """
    for size, unit, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
