"""Joins the pieces' settings into one typed tree: from YAML, presets and dotted overrides to a `Config`, and back."""

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

from ensdistill.data import Augmentation, DataSettings, Digits
from ensdistill.errors import ConfigError, ConfigIssue, SettingError
from ensdistill.methods.averaging import Averaging, NoAveraging
from ensdistill.methods.losses import Averaged, Loss
from ensdistill.methods.metrics import OwnMetric
from ensdistill.methods.perturbations import NoPerturbation, Perturbation
from ensdistill.methods.recipe import Sgd, Training
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
    """Returns the settings that stand for an object in memory, and whatever is no such object as it is."""
    as_settings = getattr(given, "as_settings", None)
    return as_settings() if callable(as_settings) else given


class Teachers(Settings):
    """The ensemble that is distilled: M networks, trained here on the labels or brought along."""

    count: int = setting(4, "How many teachers are trained here.", ge=0, le=64)
    seed: int = setting(0, "Teacher m is trained with seed + m.", ge=0)
    model: Model = setting(Convnet(), "Architecture of each teacher.")
    models: list[Model] = setting([], "Architectures of unlike teachers: teacher m has the one at m mod their number.")
    training: Training = setting(Training(optimizer=Sgd(lr=0.1)), "How each teacher is trained.")
    checkpoints: list[TeacherFile] = setting(
        [], "Trained networks that join the ensemble: each a path and a model, if need be mean and std."
    )
    # Left out of files and hashes where they are empty, so that these are those of the time before there were these.
    networks: list[InMemoryTeacher] = setting(
        [], "Trained networks that a Python program gives; see ensdistill.TeacherEnsemble.", exclude_if=operator.not_
    )
    predictions: str = setting(
        "",
        "A .npz file with the predictions of teachers for every image, for teachers that are no torch networks: arrays "
        "train_logits or train_probabilities (M,N,classes), and validation_..., test_... and unlabeled_... where the "
        "data have such parts.",
        file=True,
        exclude_if=operator.not_,
    )

    @property
    def total(self) -> int:
        """The size of the ensemble, without those of which only predictions are stored."""
        return self.count + len(self.checkpoints) + len(self.networks)

    def model_of(self, teacher: int) -> Model:
        """The architecture of one teacher that is trained here."""
        return self.models[teacher % len(self.models)] if self.models else self.model

    @model_validator(mode="after")
    def _some(self) -> "Teachers":
        if not (self.total or self.predictions):
            raise ValueError("an ensemble needs a teacher; set count to 1 or more, or name checkpoints or predictions")
        return self


class Config(Settings):
    """Everything that decides the result of one distillation."""

    seed: int = setting(0, "Seed of the student: weights, order of images, perturbations.", ge=0)
    data: DataSettings = setting(Digits(), "Which images, and how they are split.")
    model: Model = setting(Convnet(), "Architecture of the student.")
    teachers: Annotated[Teachers, BeforeValidator(settings_of)] = setting(Teachers(), "The ensemble.")
    student: StudentSettings = setting(Single(), "How one network holds several functions.")
    perturbation: Perturbation = setting(NoPerturbation(), "Which inputs both sides are shown.")
    loss: Loss = setting(Averaged(), "What the student is asked to match.")
    averaging: Averaging = setting(NoAveraging(), "Which weights are evaluated and shipped.")
    training: Training = setting(Training(), "How the student is trained.")
    schedule: list[ScheduledChange] = setting(
        [],
        "Settings that change during training: a list of {after_epoch, set}, the last epoch before the change and new "
        "values by dotted names; training.optimizer.lr and all of perturbation and loss but kind can change.",
        exclude_if=operator.not_,  # where nothing changes, files and hashes are those of the time before there was this
    )
    metrics: list[OwnMetric] = setting(
        [], "Metrics of your own, each a kind with its settings, next to the built-in ones.", exclude_if=operator.not_
    )

    def __init__(self, **settings: Any) -> None:
        """Takes settings as objects or as plain values. Raises ConfigError with every fault found."""
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise config_error(type(self), settings, error) from None

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if self.perturbation.kind == "tdiv_sdiv" and self.teachers.total < 2:
            rule = "tdiv_sdiv needs two teachers that can disagree; set teachers.count to 2 or more"
            raise SettingError(ConfigIssue(("perturbation",), rule))
        if issue := self._changed_images():
            raise SettingError(issue)
        trained: list[tuple[tuple[str, ...], Training]] = [(("training",), self.training)]
        trained += [(("teachers", "training"), self.teachers.training)] if self.teachers.count else []
        size = getattr(self.data, "train_size", None)
        known = size if isinstance(size, int) else None  # a share is known with the images
        for path, training in trained:
            if known is not None and training.batch_size > known:
                rule = f"{{value}} is more than the {known} training images"
                raise SettingError(ConfigIssue((*path, "batch_size"), rule, training.batch_size))
        return self

    def _changed_images(self) -> ConfigIssue | None:
        """The setting that changes images, if the teachers' predictions are stored for the images as they are."""
        rule = "teachers.predictions are stored for the images as they are"
        if not self.teachers.predictions:
            return None
        if self.perturbation.kind != "none":
            hint = "set perturbation.kind to none, or bring the teachers as networks"
            return ConfigIssue(("perturbation", "kind"), f"changes images, and {rule}", self.perturbation.kind, hint)
        if self.training.augmentation != Augmentation():
            hint = "leave out training.augmentation, or bring the teachers as networks"
            return ConfigIssue(("training", "augmentation"), f"changes images, and {rule}", hint=hint)
        return None

    @model_validator(mode="after")
    def _can_change_so(self) -> "Config":
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
                rule = f"{metric.kind} does not state higher_is_better"
                raise SettingError(ConfigIssue(path[:2], rule, hint="set it to True or False in the class"))
            if not re.fullmatch("[a-z][a-z0-9_]*", metric.name):
                raise SettingError(ConfigIssue(path, "must consist of a-z, 0-9 and _, from a letter on", metric.name))
            if metric.name in names:
                raise SettingError(ConfigIssue(path, "is the name of another metric, too", metric.name))
            names.add(metric.name)
        return self

    @property
    def plugins(self) -> dict[str, str]:
        """What identifies the code of each piece outside of this package, by the dotted name of its setting."""
        return {".".join(map(str, path)): piece_code(piece) for path, piece in own_pieces(Config, self).items()}

    @property
    def warnings(self) -> list[ConfigIssue]:
        """A warning for each piece that no other process can load from a file."""
        return [
            ConfigIssue(
                (*path, "kind"),
                "{value} is a class of a script, notebook or function, so no file of this run can be loaded elsewhere",
                path_of(piece),
                "move the class to a module",
            )
            for path, piece in own_pieces(Config, self).items()
            if is_unreachable(piece)
        ]

    @property
    def hash(self) -> str:
        """Content hash of all settings but the paths of files, and of the code of own pieces, 16 hexadecimal digits."""
        plugins = self.plugins
        files = files_in(Config, self) if plugins else file_settings(Config)
        own = without_files(self.model_dump(mode="json", exclude={"schedule"}), files)
        own |= {"plugins": plugins} if plugins else {}
        later = [[change.after_epoch, self.at_epoch(change.after_epoch + 1).hash] for change in self.schedule]
        return content_hash(own | {"schedule": later} if later else own)

    def at_epoch(self, epoch: int) -> "Config":
        """The settings that hold in one epoch (1 is the first), as if they always had."""
        new = {name: value for change in self.prefix_until(epoch).schedule for name, value in change.set.items()}
        return self._override(new) if new else self.prefix_until(0)

    def prefix_until(self, epoch: int) -> "Config":
        """All that decided the epochs up to this one: the same settings, without the changes that come after it."""
        return self.model_copy(update={"schedule": [change for change in self.schedule if change.after_epoch < epoch]})

    def _override(self, dotted: Mapping[str, Any]) -> "Config":
        """These settings without any changes on the way, and other values of some."""
        return validate(Config, merge_settings(self.model_dump(mode="json", exclude={"schedule"}), nest(dotted)))


def content_hash(value: Any) -> str:
    """SHA-256 of the value as canonical JSON, its first 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- from names, files and overrides to a Config -------------------------------------------------------------------


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The Config of a preset's name or a YAML file, with `a.b=value` overrides on top.

    Relative paths start at the folder of the file, those of overrides at the current folder.
    Raises ConfigError with every fault found.
    """
    tree = read_yaml(source) if _is_file(source) else {"preset": str(source)}
    changes = parse_overrides(overrides)
    names = files_in(Config, resolve(tree, changes))
    return build_config(absolute(tree, Path(source).parent, names), absolute(changes, "", names))


def parse_overrides(overrides: Sequence[str]) -> YamlDict:
    """["a.b=1"] -> {"a.b": 1}; values are read as YAML."""
    changes: YamlDict = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {override}: write it as name=value, for example loss.temperature=2")
        changes[name.strip()] = parse_yaml(text, f"--set {name}")
    return changes


def build_config(tree: Mapping[str, Any], dotted: Mapping[str, Any] | None = None) -> Config:
    """The Config of nested settings (which may name a `preset` to start from) with dotted ones on top."""
    return validate(Config, resolve(tree, dotted))


def resolve(tree: Mapping[str, Any], dotted: Mapping[str, Any] | None = None) -> YamlDict:
    """Defaults, then the preset, then the tree, then the dotted settings: nested, complete, not yet validated."""
    own = nest(tree)
    if "search" in own:
        raise ConfigError(ConfigIssue(("search",), "this is a search space; run it with `ensdistill-tune launch`"))
    preset = own.pop("preset", None)
    base = Config().model_dump(mode="json")
    if preset is not None:
        base = merge_settings(base, read_preset(preset))
    return merge_settings(merge_settings(base, own), nest(dotted or {}))


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(_preset_files())


def read_preset(name: Any) -> YamlDict:
    """The settings of one preset, nested. Raises ConfigError with the nearest name."""
    if name not in presets():
        close = f" (did you mean {near}?)" if (near := closest_match(str(name), presets())) else ""
        raise ConfigError(f"{name}: neither a preset nor a YAML file{close}; presets are {', '.join(presets())}")
    return deepcopy(_parse_preset(name))


@cache
def _preset_files() -> dict[str, Traversable]:
    """The file of every preset by its name."""
    found = (file for file in files("ensdistill.presets").iterdir() if file.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file for file in found}


@cache
def _parse_preset(name: str) -> YamlDict:
    """The settings of one preset, parsed once in a process: a study resolves them at every trial."""
    return parse_mapping(_preset_files()[name].read_text(encoding="utf-8"), f"preset {name}")


def merge_settings(base: Mapping[str, Any], changes: Mapping[str, Any]) -> YamlDict:
    """The base with the changes; where a change names another `kind`, nothing of the old kind's settings stays."""
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
    """{"a.b": 1, "a": {"c": 2}} -> {"a": {"b": 1, "c": 2}}, in any order. Raises ConfigError for what is set twice."""
    tree: YamlDict = {}
    for name, value in dotted.items():
        *path, last = name.split(".")
        if not all((*path, last)):
            raise ConfigError(f"{name!r}: a name has no empty part; leave out the dot too many")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                rule = f"{part} is already set to one value ({{value}})"
                raise ConfigError(ConfigIssue(tuple(name.split(".")), rule, place))
        _put(place, last, value, name)
    return tree


def _put(place: YamlDict, key: str, value: Any, name: str) -> None:
    """Sets one value; a mapping joins the one that is there."""
    if key not in place:
        place[key] = deepcopy(value)
    elif isinstance(value, Mapping) and isinstance(place[key], dict):
        for part, inner in value.items():
            _put(place[key], part, inner, f"{name}.{part}")
    else:
        raise ConfigError(ConfigIssue(tuple(name.split(".")), "set twice"))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> YamlDict:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: YamlDict = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return flat


def to_yaml(config: Config, comment: str = "") -> str:
    """All settings as YAML that `load_config` reads back to an equal Config."""
    heading = "".join(f"# {line}\n" for line in comment.splitlines())
    return heading + to_yaml_text(config.model_dump(mode="json"))


def _is_file(source: str | Path) -> bool:
    return isinstance(source, Path) or source.endswith((".yaml", ".yml")) or "/" in source or Path(source).is_file()
