"""Class weights of the label term, for data with rare classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from ensdistill.errors import ConfigError, ConfigIssue, SettingError
from ensdistill.runtime.lazy import torch
from ensdistill.settings.validation import closest_match, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("none", "balanced")


def _class_weights(value: Any) -> str | list[float]:
    if isinstance(value, str) and value in NAMES:
        return value
    numbers = isinstance(value, list) and all(isinstance(w, int | float) and not isinstance(w, bool) for w in value)
    if not numbers or not value or not all(math.isfinite(w) and w > 0 for w in value):
        rule = "must be none, balanced, or a list of numbers above 0, one for each class"
        near = closest_match(value, NAMES) if isinstance(value, str) else None
        raise SettingError(ConfigIssue((), rule, value, did_you_mean(near)))
    return [float(weight) for weight in value]


_SCHEMA = {"anyOf": [{"enum": list(NAMES)}, {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}}]}
ClassWeights = Annotated[str | list[float], PlainValidator(_class_weights), WithJsonSchema(_SCHEMA)]


def weights_of_classes(setting: str | list[float], labels: Tensor, names: Sequence[str]) -> Tensor | None:
    """Returns the weight of each class in the label term, (c,), on the device of the labels; None for `none`.

    `balanced` gives class k the weight N / (c n_k), where n_k of the N training images belong to class k. The mean
    weight over the training images is then 1.

    Args:
        setting: `none`, `balanced`, or one weight for each class.
        labels: Labels (N,) of the training images.
        names: Names of the c classes.

    Raises:
        ConfigError: The length of the list is not c.
    """
    if setting == "none":
        return None
    if setting == "balanced":
        counts = torch.bincount(labels, minlength=len(names)).clamp(min=1)
        return (len(labels) / (len(names) * counts)).to(torch.float32)
    if len(setting) != len(names):
        rule = f"must have one number for each of the {len(names)} classes, not {len(setting)}"
        hint = f"the order is {', '.join(names[:8])}{' and so on' if len(names) > 8 else ''}"
        raise ConfigError(ConfigIssue(("class_weights",), rule, hint=hint))
    return torch.tensor(setting, device=labels.device)
