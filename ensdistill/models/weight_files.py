"""Checkpoints of other projects: the weights of one network, found under whatever wrappers and prefixes they have."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ensdistill.errors import DataError
from ensdistill.runtime.files import head_of, stand_in
from ensdistill.runtime.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor


# Where training scripts keep the weights of the network itself; before averages of them and before anything else.
_WRAPPERS = ("", "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
_PREFIXES = {"module", "_orig_mod", "model", "net", "network"}  # which wrappers of a network put before its names
_WITHIN = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # of parts of a network, too
_COUNTER = "num_batches_tracked"  # of BatchNorm; without effect on a network that is trained no more
_LEFT_BEHIND = (_COUNTER, "total_ops", "total_params", "n_averaged")  # by tools that count or average
_DEEPEST = 4  # mappings within mappings
_MOST = 20  # prefixes that are tried
_RUNS_CODE = ("builtins.", "__builtin__.", "subprocess.", "shutil.", "importlib.", "runpy.", "socket.")


@dataclass(frozen=True)
class Weights:
    """Weights that fit a network, by its own names.

    Attributes:
        state: Name to tensor.
        place: Where in the file they are, such as "model.ema"; empty for the file itself.
        prefix: What was before each name.
    """

    state: Mapping[str, Tensor]
    place: str
    prefix: str

    def __str__(self) -> str:
        prefix = self.prefix.rstrip(".")
        parts = [f"key {self.place}" if self.place else "", f"prefix {prefix}" if prefix else ""]
        return " and ".join(filter(None, parts)) or "the names as they are"


class _Ignored:
    """Stands for any object of a file that is no tensor: whatever the file does with it, nothing happens."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def read_checkpoint_file(path: Path) -> Mapping[str, Any]:
    """Returns the content of a safetensors file, or of one of torch's, read weights-only: nothing in it is executed.

    Settings, numbers and other objects beside the tensors (argparse.Namespace, numpy scalars, ...) are left out.

    Raises:
        DataError: The file is missing or damaged, or asks for code to be run.
    """
    from safetensors.torch import load_file  # here: imports torch

    if path.is_dir():
        raise DataError(f"{path}: is a folder; give a file of weights in it (teachers.checkpoints)")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of weights (teachers.checkpoints)")
    try:
        if what := stand_in(head_of(path)):
            raise DataError(f"{path}: {what} (teachers.checkpoints)")
        state: Any = load_file(path) if _is_safetensors(path) else _read_torch(path)
    except DataError:
        raise
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged or no file of weights") from error
    except Exception as error:  # torch names a dozen different errors for a damaged or unsafe file
        what = "a TorchScript program" if "TorchScript" in str(error) else "damaged, or more than tensors in it"
        raise DataError(f"{path}: {what}; save the network's state_dict() alone") from error
    if not isinstance(state, Mapping):
        raise DataError(f"{path}: holds no state dict; save the network's state_dict()")
    return state


def _is_safetensors(path: Path) -> bool:
    """Whether it begins as such a file does: eight bytes of a length, then JSON."""
    with path.open("rb") as opened:
        head = opened.read(9)
    return head[8:] == b"{" or (path.suffix.lower() == ".safetensors" and head[:2] != b"PK")


def _read_torch(path: Path) -> Any:
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch reports of other files than its own, we report better
        try:
            objects = get_unsafe_globals_in_checkpoint(path)
        except Exception:  # its older format, or damaged
            objects = []
        if any(name.startswith(_RUNS_CODE) for name in objects):
            objects = []
        with safe_globals([(_Ignored, name) for name in objects]):
            return torch.load(path, "cpu", weights_only=True)


def find_weights(
    content: Mapping[str, Any], network: nn.Module, key: str = "", prefix: str = ""
) -> tuple[list[Weights], str]:
    """Returns all weights of a file that fit a network, the likeliest first; if there are none, why the nearest do not.

    Two of which neither is likelier, such as `student.` and `teacher.`, are for the caller to tell: see `unclear`.

    Args:
        content: From `read_checkpoint_file`.
        network: Its names and shapes decide what fits.
        key: The one place to look at, dotted; empty to look everywhere.
        prefix: The one prefix to take off; empty for any.
    """
    own = network.state_dict()
    found, closest_match = list[Weights](), (-2, "it holds no state dict; save the network's state_dict()")
    for place, state in _state_dicts(content):
        if key and place != key:
            continue
        fitting, matches, why = _fitting(state, own, prefix)
        closest_match = max(
            closest_match, (matches, f"{f'in {place}: ' if place else ''}{why}"), key=lambda pair: pair[0]
        )
        found += [Weights(weights, place, before) for before, weights in fitting]
    if key and closest_match[0] < -1:
        places = ", ".join(place for place, _ in _state_dicts(content) if place)
        closest_match = (0, f"there are no weights at {key}; weights are at {places or 'the top of the file alone'}")
    return sorted(found, key=_unlikeliness), closest_match[1]


def unclear(found: list[Weights]) -> bool:
    """Whether no place or prefix is known to be that of the network itself, and there are several."""
    return len(found) > 1 and _unlikeliness(found[0])[:2] == _unlikeliness(found[1])[:2]


def _unlikeliness(weights: Weights) -> tuple[int, int, int]:
    """The network itself before averages and other networks of the same file."""
    parts = weights.place.split(".")
    place = _WRAPPERS.index(parts[-1]) if parts[-1] in _WRAPPERS else len(_WRAPPERS)
    place += len(_WRAPPERS) * any("ema" in part.lower() or "averag" in part.lower() for part in parts)
    strange = [part for part in weights.prefix.split(".")[:-1] if part not in _PREFIXES]
    return len(strange), place, len(weights.prefix)


def _state_dicts(
    content: Mapping[Any, Any], place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors in a file, with its dotted place; what else is in it is left out."""
    tensors = {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if tensors:
        yield place, tensors
    for name, value in content.items():
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _state_dicts(value, f"{place}.{name}" if place else str(name), depth + 1)


def _fitting(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], wanted: str
) -> tuple[list[tuple[str, dict[str, Tensor]]], int, str]:
    """Prefixes without which the names of a state dict are those of the network, with its weights by these names.

    Also how many names match at best, and what is wrong with that match.
    """
    fitting: list[tuple[str, dict[str, Tensor]]] = []
    best = (-1, "no name in it is one of the network's")
    for dropped in (set[str](), _WITHIN, {*_WITHIN, "module"}):  # these may stand within a name, too
        names = {_without(name, dropped): name for name in state}
        if len(names) < len(state):
            continue  # two names would become one
        targets = {_without(name, dropped): name for name in own}
        for prefix in _prefixes(names, targets):
            if wanted and prefix != _without(wanted.rstrip(".") + ".", dropped):
                continue
            found = {name.removeprefix(prefix): state[names[name]] for name in names if name.startswith(prefix)}
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
        return fitting, 0, f"no name begins with {wanted}; they begin with {', '.join(starts[:8])}"
    return fitting, best[0], best[1]


def _without(name: str, dropped: set[str]) -> str:
    return ".".join(part for part in name.split(".") if part not in dropped) if dropped else name


def _prefixes(names: Mapping[str, str], targets: Mapping[str, str]) -> list[str]:
    """What stands before names that end as names of the network do; what stands before the most of them first."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for n in range(len(parts)):
            if ".".join(parts[n:]) in targets:
                prefix = "".join(f"{part}." for part in parts[:n])
                counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(counts, key=lambda prefix: -counts[prefix])[:_MOST]


def _misfit(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Why tensors are not those of the network; empty if they are."""
    missing = [name for name in own if name not in found and not name.endswith(_COUNTER)]
    strange = [name for name in found if name not in own and name.split(".")[-1] not in _LEFT_BEHIND]
    unlike = [name for name in own if name in found and found[name].shape != own[name].shape]
    kinds = [name for name in own if name in found and found[name].is_floating_point() != own[name].is_floating_point()]
    empty = [name for name in own if name in found and (found[name].is_meta or found[name].layout != torch.strided)]
    told = [f"{len(missing)} of {len(own)} tensors are missing, such as {missing[0]}"] if missing else []
    told += [f"{len(strange)} are too many, such as {strange[0]}"] if strange else []
    told += [
        f"{name} is {_shape(found[name])} in the file and {_shape(own[name])} in the network" for name in unlike[:2]
    ]
    told += [f"{name} is {found[name].dtype} in the file and {own[name].dtype} in the network" for name in kinds[:1]]
    told += [f"{name} is sparse or without values in the file; save dense tensors" for name in empty[:1]]
    return "; ".join(told)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
