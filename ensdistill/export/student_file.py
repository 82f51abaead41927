"""Deployable student: the network, and a weights file with all metadata required to use the network."""

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
from ensdistill.data import DataSplits, EntrySource, Shape, Split
from ensdistill.data.image_files import Resize
from ensdistill.data.resizing import resize
from ensdistill.errors import ConfigError, DataError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models import CustomModel
from ensdistill.runtime.files import ensure_writable_dir
from ensdistill.runtime.weights import STUDENT_FILE, count_values, load_weights, read_metadata
from ensdistill.settings.fields import own_kinds
from ensdistill.settings.pieces import is_own
from ensdistill.settings.validation import validate
from ensdistill.training.new_student import new_student
from ensdistill.version import __version__

CONFIG_FILE = "config.yaml"  # settings file of a student, next to the weights file
HEAD, NO_HEAD = "head", "none"  # metadata entry of a student whose user-defined loss adds no head
HASHES = ("settings", "data", "ensemble")  # hashes that identify the training inputs in a student's metadata
LARGEST = 1 << 28  # maximum number of values in an image; limits the memory that an untrusted file can allocate
_Side = Annotated[int, Field(strict=True, ge=1)]
DEFAULT_RESIZE: Resize = "squash"  # for students whose data source does not resize images
_RESIZE = TypeAdapter(Resize)
_SHAPE, _NAMES = TypeAdapter(tuple[_Side, _Side, _Side]), TypeAdapter(list[Annotated[str, Field(strict=True)]])


@dataclass(frozen=True)
class DistillationRun:
    """A distilled student and the inputs with which it was trained.

    Attributes:
        config: Settings of the run.
        data: The images.
        network: Merged network: images (B,C,H,W) in [0,1] -> logits (B,classes).
        learnt_from: Identity of the teacher ensemble.
        ensemble: The ensemble itself, if it is available.
    """

    config: Config
    data: DataSplits
    network: nn.Module
    learnt_from: str
    ensemble: TeacherEnsemble | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of the weights file."""
        return student_metadata(self.config, self.data, self.learnt_from)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Networks keyed by name: `student` and, if the ensemble is available and accepts any image, `ensemble`."""
        networks: dict[str, nn.Module] = {"student": self.network}
        if self.ensemble is not None and self.ensemble.takes_any_image:
            networks["ensemble"] = self.ensemble
        return networks

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""
        return _shape(self.data)

    @property
    def deployable(self) -> "DeployableClassifier":
        """The student with preprocessing, on the CPU."""
        return DeployableClassifier(self.network, self.shape, resize_of(self.config))


def student_metadata(config: Config, data: DataSplits, learnt_from: str) -> dict[str, str]:
    """Returns the metadata for a weights file: hashes of the inputs, and everything required to use the student.

    Values that are not plain strings are encoded as JSON.

    Args:
        config: Settings of the student.
        data: The images.
        learnt_from: Identity of the teacher ensemble.
    """
    plain = is_own(config.loss) and config.loss.head() is None
    return {
        **({HEAD: NO_HEAD} if plain else {}),
        "settings": config.hash,
        "data": data.identity,
        "ensemble": learnt_from,
        "config": config.model_dump_json(),
        "shape": json.dumps(_shape(data)),
        "class_names": json.dumps(data.class_names),
        "resize": resize_of(config),
        "version": __version__,
    }


def claim_folder(folder: Path, mine: Mapping[str, str], its_own: Callable[[Path], bool]) -> Path:
    """Returns the folder for one student's files, created if it is missing; never overwrites another student.

    Args:
        folder: Folder of the files.
        mine: The known metadata of the student.
        its_own: Function that returns whether an existing settings file describes this student.

    Raises:
        DataError: The folder contains another student or the settings of another student, or cannot be written.
    """
    student, config = folder / STUDENT_FILE, folder / CONFIG_FILE
    theirs = read_metadata(student) if student.exists() else dict(mine)
    differences = [
        f"other {'teachers' if name == 'ensemble' else name} ({theirs.get(name, 'unknown')}, now {mine[name]})"
        for name in HASHES
        if name in mine and theirs.get(name) != mine[name]
    ]
    if config.exists() and not its_own(config):
        differences = differences or ["other settings"]
    if differences:
        made = f"contains another student, made with {' and '.join(differences)}"
        raise DataError(f"{folder}: {made}; choose another folder with --out")
    return ensure_writable_dir(folder)


def load_run(config: Config, data: DataSplits, weights: Path, found: TeacherEnsemble | None = None) -> DistillationRun:
    """Returns the run that produced a stored student, on the device of the data.

    Args:
        config: Settings of the student.
        data: The images.
        weights: Weights file of the student.
        found: Available teachers; the run includes them only if the student was trained with them.

    Raises:
        DataError: The student does not exist, or was trained with other settings or images.
    """
    network = new_student(config, data).merged().eval()
    metadata = load_weights(weights, network, data.train.images.device)
    if metadata.get("settings") != config.hash:
        if config.model.weights_hash == "missing":
            raise DataError(
                f"{config.model.weights}: no such weights file (model.weights), so it is unknown whether {weights} "
                "was trained with these settings; restore the file"
            )
        raise DataError(
            f"{weights}: this student was trained with other settings ({metadata.get('settings')}, now {config.hash}); "
            "give the settings of the student, or distill again"
        )
    if metadata.get("data") != data.identity:
        raise DataError(
            f"{weights}: this student was trained with other images ({metadata.get('data')}, now {data.identity}); "
            "restore those images, or distill again"
        )
    learnt_from = metadata.get("ensemble", "unknown")
    its_own = found if found is not None and found.identity == learnt_from else None
    return DistillationRun(config, data, network, learnt_from, its_own)


class DeployableClassifier(nn.Module):
    """A student with preprocessing: uint8 images (N,H,W,C) of any size -> logits and probabilities (N,classes).

    The array layout is the same as in image libraries: `numpy.asarray(PIL_image)[None]` is a batch of one color image.
    """

    def __init__(self, network: nn.Module, shape: Shape, kind: Resize) -> None:
        """Copies a network to the CPU.

        Args:
            network: Images (N,C,H,W) in [0,1] -> logits (N,classes).
            shape: Channels, height and width of the network's input images.
            kind: How images with a different aspect ratio are resized.
        """
        super().__init__()
        self.network = deepcopy(network).cpu()
        self.size, self.kind = shape[1:], kind
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = resize(images.permute(0, 3, 1, 2), self.size, self.kind)
        logits: Tensor = self.network(x / 255)
        return logits, logits.softmax(-1)


def load_deployable(path: Path, run_imported: bool = False) -> DeployableClassifier:
    """Returns the student in a weights file, built from the metadata in the file, on the CPU.

    Args:
        path: The weights file.
        run_imported: Whether to execute code to which the file refers (`model.kind: custom` or `kind: module:Name`).

    Raises:
        DataError: The file is missing or damaged, or its metadata is incomplete.
    """
    metadata = read_metadata(path)
    config = _config_in(path, metadata, run_imported)
    if isinstance(config.model, CustomModel) and not run_imported:
        raise DataError(
            f"{path}: refuses to import {config.model.path}, because the file is untrusted; use the .onnx file instead"
        )
    shape, class_names = parse_metadata(path, metadata)
    _check_size(path, config, shape, class_names)
    network = _empty_network(config, shape, class_names)
    load_weights(path, network)
    return DeployableClassifier(network, shape, resize_in(path, metadata))


def parse_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[Shape, tuple[str, ...]]:
    """Returns the image shape and the class names that are stored in the metadata.

    Args:
        path: Path of the file, for error messages.
        metadata: Metadata of the file.

    Raises:
        DataError: The metadata does not describe an exported student.
    """
    try:
        shape, names = _SHAPE.validate_json(metadata["shape"]), _NAMES.validate_json(metadata["class_names"])
        if math.prod(shape) > LARGEST:
            raise ValueError(f"an image of {shape}")
        return shape, tuple(names)
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: the metadata lacks the image shape or the class names; export the student again with "
            "`ensdistill export`"
        ) from error


def resize_of(config: Config) -> Resize:
    """Returns how images with a different aspect ratio are resized to the input size of the network."""
    return config.data.resize if isinstance(config.data, EntrySource) else DEFAULT_RESIZE


def resize_in(path: Path, metadata: Mapping[str, str]) -> Resize:
    """Returns how images with a different aspect ratio were resized during training.

    Args:
        path: Path of the file, for error messages.
        metadata: Metadata of the file.

    Raises:
        DataError: The value is unknown.
    """
    try:
        return _RESIZE.validate_python(metadata.get("resize", DEFAULT_RESIZE))
    except ValueError as error:
        raise DataError(f"{path}: the resize mode in its metadata is unknown; export the student again") from error


def _config_in(path: Path, metadata: Mapping[str, str], run_imported: bool) -> Config:
    """Returns the settings in the metadata; raises DataError if the settings are invalid or name untrusted code."""
    try:
        tree = _needed(json.loads(metadata.get("config", "")), metadata.get(HEAD) != NO_HEAD)
        if not run_imported and (code := [kind for kind in own_kinds(Config, tree).values() if ":" in kind]):
            raise DataError(
                f"{path}: refuses to import {code[0]}, because the file is untrusted; use the .onnx file instead"
            )
        return validate(Config, tree)
    except (ConfigError, ValueError) as error:
        version = metadata.get("version", "an early version")
        raise DataError(
            f"{path}: version {__version__} cannot read its settings (written by {version}); export the student again "
            "with `ensdistill export`"
        ) from error


def _check_size(path: Path, config: Config, shape: Shape, class_names: tuple[str, ...]) -> None:
    """Raises DataError if the settings describe a network larger than that in the file; allocates no memory."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        described = sum(value.numel() for value in config.model(shape, len(class_names)).state_dict().values())
    if described > (stored := count_values(path)):
        raise DataError(
            f"{path}: its settings describe a network with {described:,} values, but the file contains {stored:,}; "
            "export the student again"
        )


def _needed(tree: Any, head: bool) -> Any:
    """Returns the settings without the sections that name external code and are not required to build the network.

    `head` is True if the loss can append a head to the network; the section `loss` is then required as well.
    """
    if not isinstance(tree, Mapping):
        return tree
    foreign = {path[0] for path in own_kinds(Config, tree)} - {"model", "student", *(["loss"] if head else [])}
    left = {name: value for name, value in tree.items() if name not in foreign | ({"schedule"} if foreign else set())}
    return left | ({"data": {"kind": "npz", "path": "unknown"}} if "data" in foreign else {})  # placeholder; never read


def _empty_network(config: Config, shape: Shape, class_names: tuple[str, ...]) -> nn.Module:
    """Returns an untrained, merged network for these settings; requires neither images nor published weights."""
    nothing = Split(torch.zeros(1, *shape, dtype=torch.uint8), torch.zeros(1, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these warnings were already issued during training
        data = DataSplits(nothing, nothing, nothing, class_names, "")
        return new_student(config, data).merged()


def _shape(data: DataSplits) -> Shape:
    """Returns the channels, height and width of an image."""
    channels, height, width = data.train.images.shape[1:]
    return channels, height, width
