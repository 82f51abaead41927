"""Teachers from elsewhere: checkpoints of any network whose architecture can be named."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ensdistill.data import Data
from ensdistill.errors import ConfigError, DataError
from ensdistill.files import user_path
from ensdistill.models import Convnet, Model, build, code_of
from ensdistill.models.normalise import Normalise
from ensdistill.settings import Settings, setting
from ensdistill.weights import fill, fingerprint

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which training scripts keep the state dict


class TeacherFile(Settings):
    """A network trained elsewhere: its state dict as torch or safetensors wrote it. Nothing in it is executed."""

    path: str = setting(..., "The file (.safetensors, or torch's, read weights-only).", file=True, min_length=1)
    model: Model = setting(Convnet(), "Its architecture.")
    mean: list[float] = setting([], "Mean per channel that its images were normalised by; empty: the training images'.")
    std: list[float] = setting([], "Standard deviation per channel likewise.")

    def __call__(self, data: Data) -> tuple[nn.Module, dict[str, Any]]:
        """The network on the device of the data, images in [0,1] -> logits (B,classes), and what identifies it.

        Raises DataError if the file is missing, damaged or another network's, ConfigError if mean or std do not fit.
        """
        path = user_path(self.path)
        state = _state_dict(path)
        network = build(self.model, data, seed=0)
        with_normalisation = "0.mean" in state  # as written by this project
        if with_normalisation and (self.mean or self.std):
            raise ConfigError(f"teachers.files: {path} has its own mean and std; leave out those of the settings")
        if not with_normalisation:
            network[0] = self._normalise(data)
        target = network if with_normalisation else network[1]
        try:
            fill(target, state)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            hint = "; a published first layer wants model.stem: original" if self.model.kind == "torchvision" else ""
            raise DataError(f"{path}: these weights do not fit teachers.files.model ({reason}){hint}") from error
        return network, {"weights": fingerprint(path), "code": code_of(self.model), **self.model_dump(exclude={"path"})}

    def _normalise(self, data: Data) -> nn.Module:
        mean, std = data.train.channel_statistics()
        own = [torch.tensor(values, device=mean.device) for values in (self.mean, self.std) if values]
        if len(own) == 1 or any(values.shape != mean.shape for values in own) or (own and own[1].min() <= 0):
            raise ConfigError(
                f"teachers.files: mean and std of {self.path} need one number for each of {len(mean)} channels, std "
                "above 0; or leave both out"
            )
        return Normalise(*own) if own else Normalise(mean, std)


def _state_dict(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint, without the wrappers that training scripts put around them."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of weights (teachers.files)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of other files than its own, we say better
            state: Any = (
                load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
            )
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged or no file of weights") from error
    except Exception as error:  # torch names a dozen different errors for a damaged or unsafe file
        raise DataError(
            f"{path}: damaged, or more than tensors in it; save the network's state_dict() alone"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: holds no state dict; save the network's state_dict()")
    if bad := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise DataError(f"{path}: {bad[0]} holds numbers that are not finite; train this teacher again")
    return {str(name).removeprefix("_orig_mod.").removeprefix("module."): t for name, t in state.items()}
