"""The weights that torchvision publishes, read from the file on disk; nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.lazy import nn, torch
from ensdistill.settings.validation import closest_match

if TYPE_CHECKING:
    from torch import Tensor


def fill(network: nn.Module, published: dict[str, Tensor]) -> None:
    """Copies every published tensor that has the shape of the network's own of that name; the others stay as they are.

    A tensor that is not finite stays out too: published weights of a feature extractor have NaN in their classifier.
    """
    own = network.state_dict()
    for name, tensor in published.items():
        if name in own and own[name].shape == tensor.shape and bool(tensor.isfinite().all()):
            own[name].copy_(tensor)


def options(name: str, sides: Sequence[int]) -> dict[str, Any]:
    """What the constructors of some networks of torchvision must be told about their images, or to leave out."""
    if name.startswith("vit_"):
        return {"image_size": sides[0]}
    if name.startswith("maxvit_"):
        return {"input_size": tuple(sides)}
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": False}
    return {}


def published_weights(models: ModuleType, name: str, weights: str) -> dict[str, Tensor]:
    """Names to tensors of the network as published.

    Raises ConfigError if no weights have this name; DataError if their file is missing, damaged or another network's.
    """
    known = models.get_model_weights(name).__members__
    if weights not in known:
        close = f" (did you mean {near}?)" if (near := closest_match(weights, known)) else ""
        raise ConfigError(f"model.weights: {weights!r} is none of {', '.join(known)}, which {name} has{close}")
    url = known[weights].url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not file.is_file():
        raise DataError(
            f"model.weights: {file} is not there, and nothing is downloaded; put {url} there, or leave it empty"
        )
    # Through the whole published network, because its layers know how to read the names of older files.
    network: nn.Module = models.get_model(name, weights=None, **options(name, known[weights].meta["min_size"]))
    try:
        state = _with_todays_names(torch.load(file, map_location="cpu", weights_only=True))
        missing = network.load_state_dict(state, strict=False).missing_keys
    except Exception as error:
        raise DataError(f"{file}: damaged, or not the weights of {name}; fetch {url} again") from error
    if missing:
        raise DataError(f"{file}: {missing[0]} is not in it, so it is not the weights of {name}; fetch {url} again")
    return network.state_dict()


def _with_todays_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """In place, for the file's version marks ride on the mapping: published DenseNets still have norm.1 for norm1."""
    for name in list(state):
        state[re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", name)] = state.pop(name)
    return state
