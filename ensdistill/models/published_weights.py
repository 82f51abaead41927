"""Published torchvision weights, read from a file on disk; nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.lazy import nn, torch
from ensdistill.settings.validation import closest_match

if TYPE_CHECKING:
    from torch import Tensor


def fill_matching(network: nn.Module, published: Mapping[str, Tensor]) -> list[str]:
    """Copies every published tensor whose name and shape match a tensor of the network; other tensors are unchanged.

    Published tensors with NaN or infinite values, such as the classifier of a feature extractor, are skipped.

    Args:
        network: Network to change in place.
        published: Published tensors, keyed by name.

    Returns:
        The names of the unchanged tensors.
    """
    left = []
    for name, tensor in network.state_dict().items():
        own = published.get(name)
        if own is not None and own.shape == tensor.shape and bool(own.isfinite().all()):
            tensor.copy_(own)
        else:
            left.append(name)
    return left


def options(name: str, sides: Sequence[int]) -> dict[str, Any]:
    """Returns the arguments that the constructor of a torchvision network requires; most networks require none.

    Args:
        name: Name of the network.
        sides: Height and width of an image, in pixels.
    """
    if name.startswith("vit_"):
        return {"image_size": sides[0]}
    if name.startswith("maxvit_"):
        return {"input_size": tuple(sides)}
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": False}
    return {}


def published_weights(models: ModuleType, name: str, weights: str) -> dict[str, Tensor]:
    """Returns the state dict of a published network.

    Args:
        models: The module `torchvision.models`.
        name: Name of the network.
        weights: Name of the weights, such as IMAGENET1K_V1.

    Raises:
        ConfigError: The network has no weights with this name.
        DataError: The weights file is missing or damaged, or contains the weights of another network.
    """
    known = models.get_model_weights(name).__members__
    if weights not in known:
        close = f" (did you mean {near}?)" if (near := closest_match(weights, known)) else ""
        raise ConfigError(
            f"model.pretrained: {weights!r} is not one of the published weights of {name}: {', '.join(known)}{close}"
        )
    url = known[weights].url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not file.is_file():
        raise DataError(
            f"model.pretrained: {file} does not exist, and nothing is downloaded; save {url} there, or leave the "
            "setting empty"
        )
    # The file is loaded into the published network, whose layers convert the tensor names of older files.
    network: nn.Module = models.get_model(name, weights=None, **options(name, known[weights].meta["min_size"]))
    try:
        state = _with_todays_names(torch.load(file, map_location="cpu", weights_only=True))
        missing = network.load_state_dict(state, strict=False).missing_keys
    except Exception as error:
        raise DataError(f"{file}: damaged, or not the weights of {name}; download {url} again") from error
    if missing:
        raise DataError(f"{file}: not the weights of {name}, because {missing[0]} is missing; download {url} again")
    return network.state_dict()


def _with_todays_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the old keys of published DenseNets (norm.1 to norm1); works in place to keep the version metadata."""
    for name in list(state):
        state[re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", name)] = state.pop(name)
    return state
