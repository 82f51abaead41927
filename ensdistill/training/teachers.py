"""Teacher ensemble: trained once, cached under a content hash of its inputs, then loaded from the cache.

A teacher is trained by the same loop as a student, without an ensemble. Each teacher has a separate folder
`<store>/<hash>/` with `network.safetensors` and `teacher.json`, so that a larger ensemble reuses the teachers of a
smaller ensemble.
"""

import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from ensdistill.config import Config, content_hash
from ensdistill.data import DataSplits
from ensdistill.data.own_source import read
from ensdistill.errors import ConfigError, ConfigIssue, DataError, DivergedError, SettingWarning, teacher_name
from ensdistill.methods.averaging import NoAveraging
from ensdistill.methods.losses import Labels
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.perturbations import NoPerturbation
from ensdistill.methods.students import Single
from ensdistill.models import build, code_identity
from ensdistill.models.stored_predictions import read_predictions
from ensdistill.models.teacher_files import LoadedTeacher
from ensdistill.runtime.files import ensure_writable_dir, user_path, write_error, write_json
from ensdistill.runtime.randomness import derive_seed
from ensdistill.runtime.weights import fingerprint, load_weights, save_weights
from ensdistill.settings.base import Settings
from ensdistill.settings.pieces import piece_code
from ensdistill.training.loop import EpochResult, distill
from ensdistill.training.new_student import check_student
from ensdistill.training.teacher_checks import check_teachers

ProgressCallback = Callable[
    [int, int], None
]  # (teacher, completed epochs); for a cached teacher, called once with the total number of epochs
Trainer = Callable[[Config, DataSplits, Path, ProgressCallback | None], None]  # adds the missing teachers to the store

# Increase this by one whenever a code change alters the weights of trained teachers, even if only in the last digit.
# The number is part of the hash of stored teachers. A test compares the weights of one teacher with stored values.
TEACHER_RECIPE_VERSION = 1


def train_teachers(config: Config, data: DataSplits, store: Path, progress: ProgressCallback | None = None) -> None:
    """Trains the teachers that are missing from the store, one after the other, in this process.

    Args:
        config: Settings of the run.
        data: The images.
        store: Folder that stores the teachers.
        progress: Called with the index of a teacher and the number of completed epochs of this teacher.
    """
    for teacher in range(config.teachers.count):
        # The generator is closed explicitly: a notebook keeps the frames of an interrupted call, which hold the lock.
        with closing(train_teacher(config, teacher, data, store)) as epochs:
            for done in epochs:
                if progress:
                    progress(teacher, done)


def get_ensemble(
    config: Config,
    data: DataSplits,
    store: str | Path,
    progress: ProgressCallback | None = None,
    train: Trainer = train_teachers,
) -> TeacherEnsemble:
    """Returns the ensemble that the settings describe, on the device of the data; trains and stores missing teachers.

    If several processes require the same teacher at the same time, only one of them trains it. A teacher whose files
    are damaged is trained again.

    Args:
        config: Settings of the run.
        data: The images.
        store: Folder that stores the teachers.
        progress: Called with the index of a teacher and the number of completed epochs of this teacher.
        train: Function that trains the missing teachers.

    Raises:
        DataError: The store cannot be written, or the outputs of a teacher are implausible.
    """
    folder = ensure_writable_dir(store)
    # opened first, so that errors are reported before any training
    files, found = open_teacher_files(config, data, folder.parent)
    train(config, data, folder, progress)
    members = [_load(config, m, data, folder) for m in range(config.teachers.count)]
    identity = content_hash([*(origin for _, origin in members), *(file.origin for file in files)])
    own = [network for network, _ in members]
    found += check_teachers(own, list(map(teacher_name, range(len(own)))), data)
    networks = [*own, *(file.network for file in files)]
    return TeacherEnsemble(networks, len(data.class_names), identity, found)


def open_teacher_files(
    config: Config, data: DataSplits, studies: str | Path = "studies"
) -> tuple[list[LoadedTeacher], list[ConfigIssue]]:
    """Returns the pretrained teachers that are listed in the settings, and warnings about them.

    Args:
        config: Settings of the run.
        data: The images.
        studies: Folder for all results, including decoded images.

    Raises:
        DataError: A file is missing, is damaged or contains a different network; a network object does not exist in
            this process; or the outputs of a teacher are implausible.
        ConfigError: `mean` or `std` of a teacher is invalid.
    """
    teachers = config.teachers
    brought = [file(data) for file in teachers.checkpoints] + [network(data) for network in teachers.networks]
    names = [file.path for file in teachers.checkpoints]
    names += [f"network {n} of teachers.networks" for n in range(1, len(teachers.networks) + 1)]
    if teachers.predictions:
        stored = read_predictions(teachers.predictions, read(config.data, studies)[0])
        brought += stored
        names += [f"{teachers.predictions}, {teacher_name(m)}" for m in range(len(stored))]
    found = [warning for one in brought for warning in one.warnings]
    found += check_teachers([one.network for one in brought], names, data)
    return brought, found + file_warnings(config, data)


def file_warnings(config: Config, data: DataSplits) -> list[ConfigIssue]:
    """Returns a warning if pretrained teachers may have been trained on the validation images."""
    brought = config.teachers.checkpoints or config.teachers.networks or config.teachers.predictions
    if not brought or data.own_validation:
        return []
    rule = (
        f"pretrained teachers may have been trained on the {len(data.validation)} validation images, which are drawn "
        "from the training split; in that case, calibration, DEE and the selection of settings are biased"
    )
    hint = "provide validation images that no teacher was trained on: val/ next to train/, or x_val in a .npz file"
    return [ConfigIssue(("teachers",), rule, hint=hint)]


def find_ensemble(config: Config, data: DataSplits, store: str | Path) -> TeacherEnsemble | None:
    """Returns the ensemble if all of its teachers are available, otherwise None; trains nothing."""
    files = [file.path for file in config.teachers.checkpoints] + [config.teachers.predictions]
    there = all(user_path(file).is_file() for file in files if file)
    there = there and all(network.there for network in config.teachers.networks)
    return get_ensemble(config, data, store) if there and not missing_teachers(config, data, Path(store)) else None


def missing_teachers(config: Config, data: DataSplits, store: Path) -> list[int]:
    """Returns the indices of the teachers that are damaged or missing from the store."""
    homes = {m: store / teacher_hash(config, m, data) for m in range(config.teachers.count)}
    return [teacher for teacher, home in homes.items() if _intact(home) is None]


def teacher_config(config: Config, teacher: int) -> Config:
    """Returns the settings for training one teacher; the seed is independent of the seeds of students."""
    return config.model_copy(
        update={
            "seed": derive_seed(config.teachers.seed + teacher, "teacher"),
            "model": config.teachers.model_of(teacher),
            "training": config.teachers.training,
            "student": Single(),
            "perturbation": NoPerturbation(),
            "loss": Labels(),
            "averaging": NoAveraging(),
            "schedule": [],
            "metrics": [],
        }
    )


def check_trained_teachers(config: Config, data: DataSplits) -> None:
    """Checks once per architecture that the teachers can be built and trained with these data; trains nothing.

    Raises:
        ConfigError: Settings are incompatible with the images; the message adds the prefix `teachers` to setting names.
        DataError: A file with initial weights is missing or damaged.
    """
    for teacher in range(min(config.teachers.count, max(1, len(config.teachers.models)))):
        try:
            with _warnings_of_teachers():
                check_student(teacher_config(config, teacher), data)
        except ConfigError as error:
            raise ConfigError(list(map(_of_teachers, error.issues))) from error
        except DataError as error:
            raise DataError(f"{teacher_name(teacher)}: {error}") from error


def _of_teachers(issue: ConfigIssue) -> ConfigIssue:
    """Returns an issue in a teacher's settings with the prefix `teachers` added to the name of the setting."""
    return issue.below("teachers") if issue.path else replace(issue, origin="teachers.")


@contextmanager
def _warnings_of_teachers() -> Iterator[None]:
    """Adds the prefix `teachers` to the setting names in warnings that are issued inside the block."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    for message in (one.message for one in found):
        own = SettingWarning(_of_teachers(message.issue)) if isinstance(message, SettingWarning) else message
        warnings.warn(own, stacklevel=3)


def teacher_hash(config: Config, teacher: int, data: DataSplits) -> str:
    """Returns the content hash of everything that determines one teacher: data, model, settings, seed, recipe."""
    own = teacher_config(config, teacher)
    made_by = {
        "data": data.identity,
        "seed": own.seed,
        "recipe": TEACHER_RECIPE_VERSION,
        "code": code_identity(own.model),
    }
    pieces: dict[str, Settings] = {"augmentation": own.training.augmentation, "optimizer": own.training.optimizer}
    made_by |= {name: code for name, piece in pieces.items() if (code := piece_code(type(piece)))}
    made_by |= {"weights": own.model.weights_hash} if own.model.weights else {}
    model = own.model.model_dump(exclude={"weights"})  # weights are identified by content, not by path
    return content_hash({**made_by, "model": model, "training": own.training.model_dump()})


def train_teacher(config: Config, teacher: int, data: DataSplits, store: Path) -> Generator[int, None, None]:
    """Trains one teacher and stores it, unless the store already contains it.

    The teacher's lock is held until the generator is exhausted or closed.

    Args:
        config: Settings of the run.
        teacher: Index of the teacher, from 0.
        data: The images.
        store: Folder that stores the teachers.

    Yields:
        The number of completed epochs, after each epoch; for a stored teacher, only the total number of epochs.

    Raises:
        DivergedError: The loss became infinite or NaN; the message names the teacher.
        DataError: The store cannot be written.
    """
    home = store / teacher_hash(config, teacher, data)
    with FileLock(f"{home}.lock"):
        if _intact(home) is None:
            yield from _train(config, teacher, data, home)
        else:
            yield config.teachers.training.epochs


def _load(config: Config, teacher: int, data: DataSplits, store: Path) -> tuple[nn.Module, str]:
    """Returns a stored teacher's network and identity; the identity is the input hash followed by the weight hash."""
    home = store / teacher_hash(config, teacher, data)
    weights = _intact(home)
    if weights is None:
        raise DataError(
            f"{home}: {teacher_name(teacher)} was trained, but its files are missing; all machines of a cluster must "
            "share one studies folder and run the same version of ensdistill"
        )
    own = teacher_config(config, teacher)
    network = build(own.model, data, own.seed)
    load_weights(home / "network.safetensors", network, data.train.images.device)
    return network, home.name + weights


def _intact(home: Path) -> str | None:
    """Returns the fingerprint of a stored teacher's weights; None if the teacher is missing or damaged."""
    try:
        record: Any = json.loads((home / "teacher.json").read_text())
        weights = fingerprint(home / "network.safetensors")
    except (OSError, ValueError):
        return None
    return weights if isinstance(record, dict) and weights == record.get("weights") else None


def _train(config: Config, teacher: int, data: DataSplits, home: Path) -> Iterator[int]:
    """Trains one teacher and stores it; replaces a damaged teacher."""
    own = teacher_config(config, teacher)
    try:
        with _warnings_of_teachers():
            distiller = distill(own, TeacherEnsemble([], len(data.class_names), "none"), data)
        for epoch in distiller:
            yield own.training.epochs if epoch.last else epoch.number
    except DivergedError as error:
        raise DivergedError(error.epoch, error.step, error.loss, teacher) from None
    _keep(own, distiller.student(), epoch, data, home)


def _keep(own: Config, network: nn.Module, last: EpochResult, data: DataSplits, home: Path) -> None:
    """Stores a trained teacher atomically."""
    temporary = home.with_name(f".{home.name}.{uuid.uuid4().hex[:8]}")
    try:
        save_weights(temporary / "network.safetensors", network)
        write_json(
            temporary / "teacher.json",
            {
                "weights": fingerprint(temporary / "network.safetensors"),
                "seed": own.seed,
                "model": own.model.model_dump(),
                "training": own.training.model_dump(),
                "data": data.identity,
                "recipe": TEACHER_RECIPE_VERSION,
                "torch": torch.__version__,
                "device": data.train.images.device.type,
                "val": last.val,
                "epochs": last.number,
                "selected_epoch": last.selected,
            },
        )
        shutil.rmtree(home, ignore_errors=True)
        os.replace(temporary, home)
    except OSError as error:
        raise write_error(home, error, "set permissions") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
