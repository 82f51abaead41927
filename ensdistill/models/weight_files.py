"""Reads checkpoints from other projects, and finds a network's weights under any wrapper key or name prefix."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError

from ensdistill.errors import DataError
from ensdistill.runtime.files import head_of, stand_in
from ensdistill.runtime.lazy import nn, torch
from ensdistill.runtime.text import verb
from ensdistill.runtime.weights import fill

if TYPE_CHECKING:
    from torch import Tensor


# Keys under which training scripts store the network's weights; preferred over averaged weights and other keys.
_WRAPPERS = ("", "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
_PREFIXES = {"module", "_orig_mod", "model", "net", "network"}  # prefixes that network wrappers add
_WITHIN = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # can also occur inside names
_COUNTER = "num_batches_tracked"  # counter of BatchNorm; no effect in evaluation mode
_LEFT_BEHIND = (_COUNTER, "total_ops", "total_params", "n_averaged")  # tensors that profilers and averaging tools add
_DEEPEST = 4  # maximum nesting depth of mappings
_MOST = 20  # maximum number of prefixes to try
_RUNS_CODE = ("builtins.", "__builtin__.", "subprocess.", "shutil.", "importlib.", "runpy.", "socket.")


@dataclass(frozen=True)
class Weights:
    """One set of weights that was found in a file and fits a network, keyed by the network's tensor names.

    Attributes:
        state: Tensors, keyed by name.
        place: Dotted key of the weights in the file, such as "model.ema"; empty for the top level.
        prefix: Prefix of the names in the file.
    """

    state: Mapping[str, Tensor]
    place: str
    prefix: str

    def __str__(self) -> str:
        prefix = self.prefix.rstrip(".")
        parts = [f"key {self.place}" if self.place else "", f"prefix {prefix}" if prefix else ""]
        return " and ".join(filter(None, parts)) or "the top level"


class Fit(NamedTuple):
    """A network, and the sets of weights in a file that match its tensors.

    Attributes:
        network: The network.
        weights: The sets of weights that fit, most likely first; can be empty.
        replaced: Names of the network's tensors that the weights do not include.
        reason: If no weights fit, the reason why the closest match does not fit.
    """

    network: nn.Module
    weights: list[Weights]
    replaced: Collection[str]
    reason: str


class _Ignored:
    """Inert placeholder for any object in a file that is not a tensor."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def read_checkpoint_file(path: Path, setting: str = "teachers.checkpoints") -> Mapping[str, Any]:
    """Returns the content of a safetensors file, or of a torch file read weights-only; executes no code from the file.

    Objects other than tensors (settings, numbers, argparse.Namespace, NumPy scalars, ...) are ignored.

    Args:
        path: The file.
        setting: Name of the setting, for messages.

    Raises:
        DataError: The file is missing or damaged, or cannot be read without executing code from it.
    """
    from safetensors.torch import load_file  # imported here, because it imports torch

    if path.is_dir():
        raise DataError(f"{path}: this is a folder; give a weights file in it ({setting})")
    if not path.is_file():
        raise DataError(f"{path}: no such weights file ({setting}); correct the path")
    try:
        if what := stand_in(head_of(path)):
            raise DataError(f"{path}: {what} ({setting})")
        state: Any = load_file(path) if _is_safetensors(path) else _read_torch(path)
    except DataError:
        raise
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged, or not a weights file; save the network's state_dict() again") from error
    except Exception as error:  # torch raises a dozen different errors for a damaged or unsafe file
        what = "this is a TorchScript program" if "TorchScript" in str(error) else "damaged, or contains code"
        raise DataError(f"{path}: {what}; save only the network's state_dict()") from error
    if not isinstance(state, Mapping):
        raise DataError(f"{path}: contains no state dict; save the network's state_dict()")
    return state


def _is_safetensors(path: Path) -> bool:
    """Returns whether a file starts like a safetensors file: eight bytes that contain a length, then JSON."""
    with path.open("rb") as opened:
        head = opened.read(9)
    return head[8:] == b"{" or (path.suffix.lower() == ".safetensors" and head[:2] != b"PK")


def _read_torch(path: Path) -> Any:
    """Returns the content of a torch file. Unknown objects become `_Ignored`, unless any of them could run code."""
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this module reports problems with such files as errors
        try:
            objects = get_unsafe_globals_in_checkpoint(path)
        except Exception:  # torch's older format, or a damaged file
            objects = []
        if any(name.startswith(_RUNS_CODE) for name in objects):
            objects = []
        with safe_globals([(_Ignored, name) for name in objects]):
            return torch.load(path, "cpu", weights_only=True)


def find_weights(
    content: Mapping[str, Any],
    network: nn.Module,
    key: str = "",
    prefix: str = "",
    replaced: Collection[str] = (),
) -> tuple[list[Weights], str]:
    """Returns all weights in a file that fit a network.

    Several sets of weights can be equally likely, for example if a file uses the prefixes `student.` and `teacher.`;
    see `unclear`.

    Args:
        content: Result of `read_checkpoint_file`.
        network: The network; the names and shapes of its tensors determine which weights fit.
        key: Dotted key of the weights in the file; empty to search the whole file.
        prefix: Prefix of the names in the file; empty to accept any prefix.
        replaced: Names of tensors that may be missing from the file or have a different shape; these tensors are
            omitted.

    Returns:
        All weights that fit, most likely first; and the reason why the closest match does not fit, which is meaningful
        only if no weights fit.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if name not in replaced}
    found, closest_match = list[Weights](), (-2, "the file contains no state dict; save the network's state_dict()")
    for place, state in _state_dicts(content):
        if key and place != key:
            continue
        fitting, matches, why = _fitting(state, own, prefix, replaced)
        closest_match = max(
            closest_match, (matches, f"{f'in {place}: ' if place else ''}{why}"), key=lambda pair: pair[0]
        )
        found += [Weights(weights, place, before) for before, weights in fitting]
    if key and closest_match[0] < -1:
        places = ", ".join(place for place, _ in _state_dicts(content) if place)
        closest_match = (0, f"no weights at key {key}; weights are at {places or 'the top level only'}")
    return sorted(found, key=_unlikeliness), closest_match[1]


def first_fit(
    content: Mapping[str, Any], candidates: Iterable[tuple[nn.Module, Collection[str]]], key: str = "", prefix: str = ""
) -> Fit:
    """Returns the first candidate network for which the file contains fitting weights; if there is none, the last one.

    Args:
        content: Result of `read_checkpoint_file`.
        candidates: One or more networks, each paired with the argument `replaced` for `find_weights`.
        key: As in `find_weights`.
        prefix: As in `find_weights`.
    """
    for network, replaced in candidates:
        found, reason = find_weights(content, network, key, prefix, replaced)
        fit = Fit(network, found, replaced, reason)
        if found:
            break
    return fit


def copy_weights(fit: Fit, place: str, fix: str) -> None:
    """Copies the most likely weights into the network that they fit, in place.

    Args:
        fit: Weights that fit.
        place: Setting and file, for messages.
        fix: Advice on how to get other weights, shown in error messages.

    Raises:
        DataError: The weights are not finite.
    """
    state = fit.weights[0].state
    if bad := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise DataError(f"{place}: {bad[0]} contains numbers that are not finite; {fix}")
    fill(fit.network, {**fit.network.state_dict(), **state})


def unclear(found: list[Weights]) -> bool:
    """Returns whether several sets of weights fit and it is unclear which set belongs to the network itself.

    Args:
        found: Weights in the order that `find_weights` returns.
    """
    return len(found) > 1 and _unlikeliness(found[0])[:2] == _unlikeliness(found[1])[:2]


def _unlikeliness(weights: Weights) -> tuple[int, int, int]:
    """Returns a sort key that ranks the network's own weights before averaged weights and weights of other networks."""
    parts = weights.place.split(".")
    place = _WRAPPERS.index(parts[-1]) if parts[-1] in _WRAPPERS else len(_WRAPPERS)
    place += len(_WRAPPERS) * any("ema" in part.lower() or "averag" in part.lower() for part in parts)
    strange = [part for part in weights.prefix.split(".")[:-1] if part not in _PREFIXES]
    return len(strange), place, len(weights.prefix)


def _state_dicts(
    content: Mapping[Any, Any], place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the dotted key and content of every mapping from names to tensors in a file; ignores other objects."""
    tensors = {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if tensors:
        yield place, tensors
    for name, value in content.items():
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _state_dicts(value, f"{place}.{name}" if place else str(name), depth + 1)


def _fitting(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], wanted: str, replaced: Collection[str]
) -> tuple[list[tuple[str, dict[str, Tensor]]], int, str]:
    """Returns the prefixes whose removal makes a state dict fit the network, each with the resulting weights.

    Also returns the largest number of matching names, and the reason why the closest match does not fit.
    """
    fitting: list[tuple[str, dict[str, Tensor]]] = []
    best = (-1, "it has none of the network's parameter names")
    for dropped in (set[str](), _WITHIN, {*_WITHIN, "module"}):  # parts to remove anywhere in a name
        names = {_without(name, dropped): name for name in state}
        if len(names) < len(state):
            continue  # two different names would become equal
        targets = {_without(name, dropped): name for name in own}
        for prefix in _prefixes(names, targets):
            if wanted and prefix != _without(wanted.rstrip(".") + ".", dropped):
                continue
            shortened = {name.removeprefix(prefix): full for name, full in names.items() if name.startswith(prefix)}
            found = {name: state[full] for name, full in shortened.items() if name not in replaced}
            matches = sum(name in found for name in targets)
            why = _misfit(found, {name: own[targets[name]] for name in targets})
            if not why:
                weights = {targets[name]: tensor for name, tensor in found.items() if name in targets}
                weights |= {name: tensor for name, tensor in own.items() if name not in weights}  # counters
                fitting.append((prefix, weights))
            best = max(best, (matches, why), key=lambda pair: pair[0])
        if fitting:
            break
    if wanted and best[0] < 0:
        starts = sorted({name.split(".")[0] for name in state})
        return fitting, 0, f"no name starts with {wanted}; names start with {', '.join(starts[:8])}"
    return fitting, best[0], best[1]


def _without(name: str, dropped: set[str]) -> str:
    """Returns a dotted name without the parts in `dropped`."""
    return ".".join(part for part in name.split(".") if part not in dropped) if dropped else name


def _prefixes(names: Mapping[str, str], targets: Mapping[str, str]) -> list[str]:
    """Returns the prefixes of names that end in a tensor name of the network, most frequent first."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for n in range(len(parts)):
            if ".".join(parts[n:]) in targets:
                prefix = "".join(f"{part}." for part in parts[:n])
                counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(counts, key=lambda prefix: -counts[prefix])[:_MOST]


def _misfit(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Returns the reason why the tensors do not fit the network; empty if they fit."""
    missing = [name for name in own if name not in found and not name.endswith(_COUNTER)]
    strange = [name for name in found if name not in own and name.split(".")[-1] not in _LEFT_BEHIND]
    unlike = [name for name in own if name in found and found[name].shape != own[name].shape]
    kinds = [name for name in own if name in found and found[name].is_floating_point() != own[name].is_floating_point()]
    empty = [name for name in own if name in found and (found[name].is_meta or found[name].layout != torch.strided)]
    absent = f"{len(missing)} of {len(own)} tensors {verb(len(missing))} missing"
    reasons = [f"{absent}, such as {missing[0]}"] if missing else []
    reasons += [f"{len(strange)} unexpected, such as {strange[0]}"] if strange else []
    reasons += [
        f"{name} is {_shape(found[name])} in the file and {_shape(own[name])} in the network" for name in unlike[:2]
    ]
    reasons += [f"{name} is {found[name].dtype} in the file and {own[name].dtype} in the network" for name in kinds[:1]]
    reasons += [f"{name} is sparse or has no values in the file; save dense tensors" for name in empty[:1]]
    return "; ".join(reasons)


def _shape(tensor: Tensor) -> str:
    """Returns the shape of a tensor as a string, such as 16x3x3x3."""
    return "x".join(map(str, tensor.shape)) or "a scalar"
