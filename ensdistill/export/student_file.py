"""A student as it is shipped: its network, and a file of weights that says all that is needed to use it anywhere."""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from ensdistill.config import Config
from ensdistill.data import DataSplits, Shape, Split
from ensdistill.data.splits import to_unit
from ensdistill.errors import ConfigError, DataError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models import CustomModel, Torchvision
from ensdistill.runtime.files import ensure_writable_dir
from ensdistill.runtime.weights import STUDENT_FILE, load_weights, read_metadata
from ensdistill.settings.fields import own_kinds
from ensdistill.settings.pieces import is_own
from ensdistill.settings.validation import validate
from ensdistill.training.new_student import new_student
from ensdistill.version import __version__

CONFIG_FILE = "config.yaml"  # the settings of a student, next to its weights
HEAD, NO_HEAD = "head", "none"  # in the metadata: a loss that is not built in adds nothing to the network
HASHES = ("settings", "data", "ensemble")  # in the metadata of a student: what it was made from
LARGEST = 1 << 28  # values of an image; a file may say anything, and memory is set aside for it
_Side = Annotated[int, Field(strict=True, ge=1)]
_SHAPE, _NAMES = TypeAdapter(tuple[_Side, _Side, _Side]), TypeAdapter(list[Annotated[str, Field(strict=True)]])


@dataclass(frozen=True)
class DistillationRun:
    """A distilled student beside what it was made from."""

    config: Config
    data: DataSplits
    network: nn.Module  # merged: images (B,C,H,W) in [0,1] -> logits (B,classes)
    learnt_from: str  # the identity of the ensemble
    ensemble: TeacherEnsemble | None = None  # the ensemble itself, if it is at hand

    @property
    def metadata(self) -> dict[str, str]:
        """What is written into the student's file."""
        return student_metadata(self.config, self.data, self.learnt_from)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """`student` and, if it is at hand and takes any image, `ensemble`."""
        networks: dict[str, nn.Module] = {"student": self.network}
        if self.ensemble is not None and self.ensemble.takes_any_image:
            networks["ensemble"] = self.ensemble
        return networks

    @property
    def shape(self) -> Shape:
        """Of one image."""
        return _shape(self.data)


def student_metadata(config: Config, data: DataSplits, learnt_from: str) -> dict[str, str]:
    """All that is needed to use a student, and what it was made from: hashes as they are, the rest as JSON."""
    plain = is_own(config.loss) and config.loss.head() is None
    return {
        **({HEAD: NO_HEAD} if plain else {}),
        "settings": config.hash,
        "data": data.identity,
        "ensemble": learnt_from,
        "config": config.model_dump_json(),
        "shape": json.dumps(_shape(data)),
        "class_names": json.dumps(data.class_names),
        "version": __version__,
    }


def claim_folder(folder: Path, mine: Mapping[str, str], its_own: Callable[[Path], bool]) -> Path:
    """Returns the folder for the files of one student, made if it is missing. Nothing of another one is overwritten.

    Args:
        folder: Where the files will lie.
        mine: Metadata of the student, as far as they are known.
        its_own: Returns whether a settings file that is there belongs to this student.

    Raises:
        DataError: Another student or its settings are there, or the folder cannot be written.
    """
    student, config = folder / STUDENT_FILE, folder / CONFIG_FILE
    theirs = read_metadata(student) if student.exists() else dict(mine)
    differences = [
        f"other {name} ({theirs.get(name, 'unknown')}, now {mine[name]})"
        for name in HASHES
        if name in mine and theirs.get(name) != mine[name]
    ]
    if config.exists() and not its_own(config):
        differences = differences or ["other settings"]
    if differences:
        made = f"another student is there, made with {' and '.join(differences)}"
        raise DataError(f"{folder}: {made}; choose another folder with --out")
    return ensure_writable_dir(folder)


def load_run(config: Config, data: DataSplits, weights: Path, found: TeacherEnsemble | None = None) -> DistillationRun:
    """The run of these settings, on the device of the data.

    found: teachers that are there; they are the run's only if it is from them that the student learnt.
    Raises DataError if there is no such student, or one of other settings or other images.
    """
    network = new_student(config, data).merged().eval()
    metadata = load_weights(weights, network, data.train.images.device)
    if metadata.get("settings") != config.hash:
        raise DataError(
            f"{weights}: this student was made with other settings ({metadata.get('settings')}, now {config.hash})"
        )
    if metadata.get("data") != data.identity:
        raise DataError(
            f"{weights}: this student was made with other images ({metadata.get('data')}, now {data.identity}); "
            "restore them or distil again"
        )
    learnt_from = metadata.get("ensemble", "unknown")
    its_own = found if found is not None and found.identity == learnt_from else None
    return DistillationRun(config, data, network, learnt_from, its_own)


class DeployableClassifier(nn.Module):
    """The student with its preprocessing: uint8 images (N,C,H,W), 0 to 255 -> logits and probabilities (N,classes)."""

    def __init__(self, network: nn.Module) -> None:
        """network: images (N,C,H,W) in [0,1] -> logits (N,classes); copied to the CPU."""
        super().__init__()
        self.network = deepcopy(network).cpu()
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.network(to_unit(images))
        return logits, logits.softmax(-1)


def load_deployable(path: Path, run_imported: bool = False) -> DeployableClassifier:
    """The student of a file of weights, from what the file says of itself; on the CPU.

    run_imported: whether code that the file names may be run, as of `model.kind: custom` or of `kind: module:Name`.
    Raises DataError if the file is missing, damaged, or does not say enough.
    """
    metadata = read_metadata(path)
    config = _config_in(path, metadata, run_imported)
    if isinstance(config.model, CustomModel) and not run_imported:
        raise DataError(
            f"{path}: its network is code outside of this project ({config.model.path}), which is not run on a file's "
            "word; take the .onnx file beside it"
        )
    network = _empty_network(config, *parse_metadata(path, metadata))
    load_weights(path, network)
    return DeployableClassifier(network)


def parse_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[Shape, tuple[str, ...]]:
    """Shape of the images and names of the classes. Raises DataError if the file was written by somebody else."""
    try:
        shape, names = _SHAPE.validate_json(metadata["shape"]), _NAMES.validate_json(metadata["class_names"])
        if math.prod(shape) > LARGEST:
            raise ValueError(f"an image of {shape}")
        return shape, tuple(names)
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: does not say what images it takes and which classes it knows; write it anew with "
            "`ensdistill export`"
        ) from error


def _config_in(path: Path, metadata: Mapping[str, str], run_imported: bool) -> Config:
    try:
        tree = _needed(json.loads(metadata.get("config", "")), metadata.get(HEAD) != NO_HEAD)
        if not run_imported and (code := [kind for kind in own_kinds(Config, tree).values() if ":" in kind]):
            raise DataError(
                f"{path}: its network is made by code outside of this project ({code[0]}), which is not run on a "
                "file's word; take the .onnx file beside it"
            )
        return validate(Config, tree)
    except (ConfigError, ValueError) as error:
        version = metadata.get("version", "an early version")
        raise DataError(
            f"{path}: no settings in it that this version ({__version__}) understands (written by {version}); write it "
            "anew with `ensdistill export`"
        ) from error


def _needed(tree: Any, head: bool) -> Any:
    """The settings without the sections that name code of others and have no part in the network.

    head: whether the loss may have a part in it.
    """
    if not isinstance(tree, Mapping):
        return tree
    foreign = {path[0] for path in own_kinds(Config, tree)} - {"model", "student", *(["loss"] if head else [])}
    left = {name: value for name, value in tree.items() if name not in foreign | ({"schedule"} if foreign else set())}
    return left | ({"data": {"kind": "npz", "path": "unknown"}} if "data" in foreign else {})  # of whatever size


def _empty_network(config: Config, shape: Shape, class_names: tuple[str, ...]) -> nn.Module:
    """The merged network of these settings before its weights are there; needs neither images nor published weights."""
    nothing = Split(torch.zeros(1, *shape, dtype=torch.uint8), torch.zeros(1, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were told when the student was trained
        model = config.model
        bare = model.model_copy(update={"weights": ""}) if isinstance(model, Torchvision) else model
        data = DataSplits(nothing, nothing, nothing, class_names, "")
        network = new_student(config.model_copy(update={"model": bare}), data).merged()
    for module in network.modules():
        if "transform_input" in vars(module):  # of GoogLeNet and Inception, where they begin with published weights
            vars(module)["transform_input"] = bare != model and shape[0] == 3
    return network


def _shape(data: DataSplits) -> Shape:
    channels, height, width = data.train.images.shape[1:]
    return channels, height, width
