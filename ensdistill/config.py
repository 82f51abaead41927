"""Typed settings of one distillation: `Config`, built from YAML, presets and dotted overrides, and written as YAML."""

import hashlib
import json
import operator
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, model_validator

from ensdistill.data import DataSettings, Digits
from ensdistill.errors import ConfigError, ConfigIssue, SettingError
from ensdistill.methods.averaging import Averaging, NoAveraging
from ensdistill.methods.losses import Averaged, Loss
from ensdistill.methods.metrics import OwnMetric
from ensdistill.methods.optimizers import Sgd
from ensdistill.methods.perturbations import NoPerturbation, Perturbation
from ensdistill.methods.recipe import Training
from ensdistill.methods.schedule import ScheduledChange, can_change
from ensdistill.methods.students import Single, StudentSettings
from ensdistill.models import Convnet, Model
from ensdistill.models.in_memory_teacher import InMemoryTeacher
from ensdistill.models.teacher_files import TeacherFile
from ensdistill.settings.base import Settings, setting
from ensdistill.settings.fields import own_pieces
from ensdistill.settings.paths import absolute, file_settings, files_in, without_files
from ensdistill.settings.pieces import is_unreachable, path_of, piece_code
from ensdistill.settings.validation import closest_match, config_error, validate
from ensdistill.settings.yaml_loader import YamlDict, parse_mapping, parse_yaml, read_yaml, to_yaml_text


def settings_of(given: Any) -> Any:
    """Returns the settings that represent an in-memory object; other values are returned unchanged.

    Args:
        given: An object with an `as_settings` method, or any other value.

    Returns:
        The result of `as_settings()`, or the given value.
    """
    as_settings = getattr(given, "as_settings", None)
    return as_settings() if callable(as_settings) else given


class Teachers(Settings):
    """Teacher ensemble: M networks that are already trained, or that this package trains on the labels."""

    count: int = setting(4, "Number of teachers to train.", ge=0, le=64)
    seed: int = setting(0, "Seed of the first teacher; teacher m (from 0) is trained with seed + m.", ge=0)
    model: Model = setting(Convnet(), "Architecture of each teacher.")
    models: list[Model] = setting(
        [], "Architectures of a mixed ensemble; with n entries, teacher m uses entry m mod n."
    )
    training: Training = setting(Training(optimizer=Sgd(lr=0.1)), "Training recipe of each teacher.")
    checkpoints: list[TeacherFile] = setting(
        [], "Trained networks to add to the ensemble; each entry has a path, a model and, optionally, mean and std."
    )
    # Excluded from files and hashes while empty, so that hashes from before these settings existed stay valid.
    networks: list[InMemoryTeacher] = setting(
        [], "Trained networks from a Python program; see ensdistill.TeacherEnsemble.", exclude_if=operator.not_
    )
    predictions: str = setting(
        "",
        "A .npz file with the predictions of teachers that are not torch networks, for every image. The array for the "
        "training split is named train_logits or train_probabilities and has shape (M,N,classes). The arrays for the "
        "other splits are named in the same way, with validation, test or unlabeled instead of train.",
        file=True,
        exclude_if=operator.not_,
    )

    @property
    def total(self) -> int:
        """Number of teachers that are networks; teachers that have only stored predictions are not counted."""
        return self.count + len(self.checkpoints) + len(self.networks)

    def model_of(self, teacher: int) -> Model:
        """Returns the architecture of one teacher that this package trains.

        Args:
            teacher: Index of the teacher, from 0 to `count` - 1.
        """
        return self.models[teacher % len(self.models)] if self.models else self.model

    @model_validator(mode="after")
    def _some(self) -> "Teachers":
        if not (self.total or self.predictions):
            raise ValueError("an ensemble requires a teacher; increase count, or give checkpoints or predictions")
        return self


class Config(Settings):
    """All settings that determine the result of one distillation."""

    seed: int = setting(0, "Seed of the student's initial weights, image order and perturbations.", ge=0)
    data: DataSettings = setting(Digits(), "Data set and sizes of its splits.")
    model: Model = setting(Convnet(), "Architecture of the student.")
    teachers: Annotated[Teachers, BeforeValidator(settings_of)] = setting(Teachers(), "Teacher ensemble.")
    student: StudentSettings = setting(Single(), "How the subnetworks of the student are represented in one network.")
    perturbation: Perturbation = setting(
        NoPerturbation(), "Perturbation of the inputs on which teachers and student are compared."
    )
    loss: Loss = setting(Averaged(), "Distillation loss: the objective that the student is trained to minimize.")
    averaging: Averaging = setting(
        NoAveraging(), "Weight averaging, which determines the weights that are evaluated and exported."
    )
    training: Training = setting(Training(), "Training recipe of the student.")
    schedule: list[ScheduledChange] = setting(
        [],
        "Settings that change during training: a list of {after_epoch, set}. after_epoch is the last epoch before the "
        "change; set contains the new values, keyed by dotted name. Only training.optimizer.lr and the settings of "
        "perturbation and loss, except kind, can change.",
        exclude_if=operator.not_,  # excluded while empty, so that earlier files and hashes without it stay valid
    )
    metrics: list[OwnMetric] = setting(
        [],
        "User-defined metrics in addition to the built-in ones; each entry has a kind and the settings of that kind.",
        exclude_if=operator.not_,
    )

    def __init__(self, **settings: Any) -> None:
        """Creates a validated config.

        Args:
            settings: Top-level settings, as objects or plain values.

        Raises:
            ConfigError: Settings are invalid; the error lists every issue found.
        """
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise config_error(type(self), settings, error) from None

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if self.perturbation.kind == "tdiv_sdiv" and self.teachers.total < 2:
            rule = "tdiv_sdiv requires at least two teachers; set teachers.count to 2 or more"
            raise SettingError(ConfigIssue(("perturbation",), rule))
        if issue := self._changed_images():
            raise SettingError(issue)
        if self.training.patience is not None:
            hint = "set teachers.training.patience; in a study, the scheduler stops students"
            raise SettingError(ConfigIssue(("training", "patience"), "applies only to teachers", hint=hint))
        trained: list[tuple[tuple[str, ...], Training]] = [(("training",), self.training)]
        trained += [(("teachers", "training"), self.teachers.training)] if self.teachers.count else []
        size = getattr(self.data, "train_size", None)
        known = size if isinstance(size, int) else None  # a fraction is converted once the images are loaded
        for path, training in trained:
            if known is not None and training.batch_size > known:
                rule = f"{{value}} is more than the {known} training images"
                raise SettingError(ConfigIssue((*path, "batch_size"), rule, training.batch_size))
        return self

    def _changed_images(self) -> ConfigIssue | None:
        """Returns an issue if stored predictions are combined with a setting that changes images; otherwise None."""
        rule = "teachers.predictions were computed on unchanged images"
        if not self.teachers.predictions:
            return None
        if self.perturbation.kind != "none":
            hint = "set perturbation.kind to none, or give the teachers as networks"
            return ConfigIssue(("perturbation", "kind"), f"changes images, but {rule}", self.perturbation.kind, hint)
        if self.training.augmentation.changes_images:
            hint = "remove training.augmentation, or give the teachers as networks"
            return ConfigIssue(("training", "augmentation"), f"changes images, but {rule}", hint=hint)
        return None

    @model_validator(mode="after")
    def _schedule_is_valid(self) -> "Config":
        issues: list[ConfigIssue] = []
        config, last = self.prefix_until(0), 0
        for n, change in enumerate(self.schedule):
            own = list(change.issues(last, self.training.epochs))
            try:
                config = config._override({name: value for name, value in change.set.items() if can_change(name)})
            except ConfigError as error:
                own += [issue.below("set") for issue in error.issues]
            issues += [issue.below("schedule", n) for issue in own]
            last = max(last, change.after_epoch)
        if issues:
            raise ConfigError(issues)
        return self

    @model_validator(mode="after")
    def _metrics_have_names(self) -> "Config":
        names: set[str] = set()
        for n, metric in enumerate(self.metrics):
            path = ("metrics", n, "name")
            if not isinstance(getattr(metric, "higher_is_better", None), bool):
                rule = f"{metric.kind} does not define higher_is_better"
                raise SettingError(ConfigIssue(path[:2], rule, hint="set it to True or False in the class"))
            if not re.fullmatch("[a-z][a-z0-9_]*", metric.name):
                rule = "must consist of a-z, 0-9 and _, and start with a letter"
                raise SettingError(ConfigIssue(path, rule, metric.name))
            if metric.name in names:
                raise SettingError(ConfigIssue(path, "must be unique among the metrics", metric.name))
            names.add(metric.name)
        return self

    @property
    def plugins(self) -> dict[str, str]:
        """Code identifiers of user-defined pieces, keyed by dotted setting name."""
        return {".".join(map(str, path)): piece_code(piece) for path, piece in own_pieces(Config, self).items()}

    @property
    def warnings(self) -> list[ConfigIssue]:
        """Warnings, one for each piece that another process cannot import."""
        return [
            ConfigIssue(
                (*path, "kind"),
                "{value} is defined in a script, notebook or function, so no other process can load files of this run",
                path_of(piece),
                "move the class to a module",
            )
            for path, piece in own_pieces(Config, self).items()
            if is_unreachable(piece)
        ]

    @property
    def hash(self) -> str:
        """Hash of all settings except file paths, and of the code of user-defined pieces; 16 hexadecimal digits.

        For a file with initial weights, the content is hashed instead of the path.
        """
        plugins = self.plugins
        files = files_in(Config, self) if plugins else file_settings(Config)
        own = without_files(self.model_dump(mode="json", exclude={"schedule"}), files)
        own |= {"plugins": plugins} if plugins else {}
        own |= {"weights": weights} if (weights := self._weights) else {}
        later = [[change.after_epoch, self.at_epoch(change.after_epoch + 1).hash] for change in self.schedule]
        return content_hash(own | {"schedule": later} if later else own)

    @property
    def _weights(self) -> dict[str, str]:
        """Content hashes of files with initial weights, keyed by the dotted name of the model setting."""
        own = self.teachers
        models = {"model": self.model} | ({"teachers.model": own.model} if own.count and not own.models else {})
        models |= {f"teachers.models.{n}": model for n, model in enumerate(own.models) if own.count}
        return {name: model.weights_hash for name, model in models.items() if model.weights}

    def at_epoch(self, epoch: int) -> "Config":
        """Returns the settings that apply in one epoch, with an empty schedule.

        Args:
            epoch: Epoch number, from 1.
        """
        new = {name: value for change in self.prefix_until(epoch).schedule for name, value in change.set.items()}
        return self._override(new) if new else self.prefix_until(0)

    def prefix_until(self, epoch: int) -> "Config":
        """Returns the settings that determine the results up to the given epoch, without changes for later epochs.

        Args:
            epoch: Epoch number, from 1.
        """
        return self.model_copy(update={"schedule": [change for change in self.schedule if change.after_epoch < epoch]})

    def hash_until(self, epoch: int) -> str:
        """Returns the hash of the settings that determine the results up to the given epoch.

        If these results do not depend on the total number of epochs, the hash excludes this number, so that a
        checkpoint can be resumed with more epochs.

        Args:
            epoch: Epoch number, from 1.
        """
        prefix = self.prefix_until(epoch)
        if any(piece.depends_on_length for piece in (self.training, self.averaging, self.student)):
            return prefix.hash
        training = self.training.model_copy(update={"epochs": max(1, epoch)})
        return prefix.model_copy(update={"training": training}).hash

    def _override(self, dotted: Mapping[str, Any]) -> "Config":
        """Returns a copy of the settings with some values replaced and without the schedule."""
        return validate(Config, merge_settings(self.model_dump(mode="json", exclude={"schedule"}), nest(dotted)))


def content_hash(value: Any) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 hash of a value's canonical JSON.

    Args:
        value: A plain value; NaN and infinity raise ValueError.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- from names, files and overrides to a Config -------------------------------------------------------------------


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Returns the Config of a preset or YAML file, with overrides applied.

    Relative paths in a file are resolved against the folder of the file, and those in overrides against the current
    folder.

    Args:
        source: Name of a preset, or path of a YAML file.
        overrides: Strings of the form `a.b=value`; each value is parsed as YAML.

    Raises:
        ConfigError: Settings are invalid; the error lists every issue found.
    """
    tree = read_yaml(source) if _is_file(source) else {"preset": str(source)}
    changes = parse_overrides(overrides)
    names = files_in(Config, resolve(tree, changes))
    return build_config(absolute(tree, Path(source).parent, names), absolute(changes, "", names))


def parse_overrides(overrides: Sequence[str]) -> YamlDict:
    """Returns overrides as a mapping from dotted names to values: `["a.b=1"]` becomes `{"a.b": 1}`.

    Args:
        overrides: Strings of the form `name=value`; each value is parsed as YAML.

    Raises:
        ConfigError: A string does not have the form `name=value`, or its value is not valid YAML.
    """
    changes: YamlDict = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {override}: must have the form name=value, for example loss.temperature=2")
        changes[name.strip()] = parse_yaml(text, f"--set {name}")
    return changes


def build_config(tree: Mapping[str, Any], dotted: Mapping[str, Any] | None = None) -> Config:
    """Returns the Config defined by nested settings, with dotted settings applied.

    Args:
        tree: Nested settings; `preset` names the preset to start from.
        dotted: Settings keyed by dotted name; they override those of the tree.

    Raises:
        ConfigError: Settings are invalid; the error lists every issue found.
    """
    return validate(Config, resolve(tree, dotted))


def resolve(tree: Mapping[str, Any], dotted: Mapping[str, Any] | None = None) -> YamlDict:
    """Returns the complete settings, nested and not yet validated.

    Later sources override earlier ones: defaults, preset, tree, dotted settings.

    Args:
        tree: Nested settings; `preset` names the preset.
        dotted: Settings keyed by dotted name.

    Raises:
        ConfigError: The settings define a search space, the preset does not exist, or a setting is given twice.
    """
    own = nest(tree)
    if "search" in own:
        raise ConfigError(ConfigIssue(("search",), "this is a search space; run it with `ensdistill-tune launch`"))
    preset = own.pop("preset", None)
    base = Config().model_dump(mode="json")
    if preset is not None:
        base = merge_settings(base, read_preset(preset))
    return merge_settings(merge_settings(base, own), nest(dotted or {}))


def presets() -> list[str]:
    """Returns the names of the presets in the package, sorted."""
    return sorted(_preset_files())


def read_preset(name: Any) -> YamlDict:
    """Returns the nested settings of one preset.

    Args:
        name: Name of the preset.

    Raises:
        ConfigError: No preset has this name; the message suggests the closest name.
    """
    if name not in presets():
        close = f" (did you mean {near}?)" if (near := closest_match(str(name), presets())) else ""
        raise ConfigError(f"{name}: neither a preset nor a YAML file{close}; presets are {', '.join(presets())}")
    return deepcopy(_parse_preset(name))


@cache
def _preset_files() -> dict[str, Traversable]:
    """Returns the preset files, keyed by the name of the preset."""
    found = (file for file in files("ensdistill.presets").iterdir() if file.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file for file in found}


@cache
def _parse_preset(name: str) -> YamlDict:
    """Returns the settings of one preset, parsed once per process because a study resolves them for every trial."""
    return parse_mapping(_preset_files()[name].read_text(encoding="utf-8"), f"preset {name}")


def merge_settings(base: Mapping[str, Any], changes: Mapping[str, Any]) -> YamlDict:
    """Returns the base settings with changes merged at all levels of nesting.

    Args:
        base: Nested settings.
        changes: Nested settings that override the base. A mapping with a different `kind` replaces the whole mapping of
            the base, because the settings of the old kind no longer apply.
    """
    if "kind" in changes and changes["kind"] != base.get("kind"):
        return dict(changes)
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, Settings) and isinstance(value, Mapping):
            old = old.model_dump(mode="json")
        merged[key] = merge_settings(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def nest(dotted: Mapping[str, Any]) -> YamlDict:
    """Returns dotted settings as nested settings: `{"a.b": 1, "a": {"c": 2}}` becomes `{"a": {"b": 1, "c": 2}}`.

    Args:
        dotted: Settings keyed by dotted or plain name, in any order; a value may be a mapping.

    Raises:
        ConfigError: A setting is given twice, or a name has an empty part.
    """
    tree: YamlDict = {}
    for name, value in dotted.items():
        *path, last = name.split(".")
        if not all((*path, last)):
            raise ConfigError(f"{name!r}: a dotted name must not have an empty part; remove the extra dot")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                rule = f"{part} is already set to a single value ({{value}})"
                raise ConfigError(ConfigIssue(tuple(name.split(".")), rule, place))
        _put(place, last, value, name)
    return tree


def _put(place: YamlDict, key: str, value: Any, name: str) -> None:
    """Sets one value; a mapping is merged into an existing mapping."""
    if key not in place:
        place[key] = deepcopy(value)
    elif isinstance(value, Mapping) and isinstance(place[key], dict):
        for part, inner in value.items():
            _put(place[key], part, inner, f"{name}.{part}")
    else:
        raise ConfigError(ConfigIssue(tuple(name.split(".")), "set twice"))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> YamlDict:
    """Returns nested settings as a flat mapping keyed by dotted name: `{"a": {"b": 1}}` becomes `{"a.b": 1}`.

    Args:
        tree: Nested settings.
        prefix: String to prepend to each name.
    """
    flat: YamlDict = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return flat


def to_yaml(config: Config, comment: str = "") -> str:
    """Returns all settings as YAML, from which `load_config` builds an equal Config.

    Args:
        config: The settings.
        comment: Text of the comment at the top; one or more lines.
    """
    heading = "".join(f"# {line}\n" for line in comment.splitlines())
    return heading + to_yaml_text(config.model_dump(mode="json"))


def _is_file(source: str | Path) -> bool:
    return isinstance(source, Path) or source.endswith((".yaml", ".yml")) or "/" in source or Path(source).is_file()
