"""Every piece of every axis, read off the axes' own union types: a new piece is under contract without a line here.

A piece with a setting that must be given needs a row in ROWS; without it the suite fails and says so.
"""

from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from ensdistill.config import Config
from ensdistill.data import DataSplits, Split
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.students.base import Student
from ensdistill.models import Convnet, build
from ensdistill.runtime.randomness import RandomStreams, temporary_seed
from ensdistill.settings.base import Settings

CLASSES = 5
MODEL = Convnet(width=4, blocks=2)

ROWS: dict[str, dict[str, Any]] = {}  # kind -> settings that must be given


def pieces(axis: Any) -> list[type[Settings]]:
    """The settings classes of one axis."""
    union = get_args(axis)[0] if get_origin(axis) is not None and hasattr(axis, "__metadata__") else axis
    return list(get_args(union)) or [union]


def variants(axis: Any) -> list[Any]:
    """Each piece with its defaults, and once more for every other choice of every setting that is a choice."""
    made = []
    for piece in pieces(axis):
        row = ROWS.get(str(piece.model_fields["kind"].default), {})
        missing = [name for name, field in piece.model_fields.items() if field.is_required() and name not in row]
        assert not missing, f"{piece.__name__} needs a row in ROWS for {missing}"
        made.append(named(piece(**row)))
        for name, field in piece.model_fields.items():
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            others = [choice for choice in choices if choice != field.default]
            made += [named(piece(**row | {name: choice}), f"{name}={choice}") for choice in others]
    return made


def named(piece: Settings, change: str = "") -> Any:
    kind = getattr(piece, "kind", type(piece).__name__)
    return pytest.param(piece, id=f"{kind}-{change}" if change else kind)


def toy_data(images: int = 24) -> DataSplits:
    """Random images 1x8x8 of five classes; half of the validation images are the training images' size again."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        pixels = torch.randint(256, (count, 1, 8, 8), generator=generator).to(torch.uint8)
        return Split(pixels, torch.arange(count) % CLASSES)

    return DataSplits(split(images), split(10), split(0), tuple("abcde"), "toy")


def toy_ensemble(data: DataSplits, teachers: int = 2) -> TeacherEnsemble:
    return TeacherEnsemble([build(MODEL, data, 50 + m) for m in range(teachers)], CLASSES, "toy")


def toy_student(settings: Any, data: DataSplits, seed: int = 0, spread: bool = True) -> Student:
    """A student in training mode; `spread` moves all its parameters a little, so that its subnetworks differ."""
    with temporary_seed(seed, torch.device("cpu")):
        student: Student = settings(build(MODEL, data, seed))
    if spread:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in student.parameters():
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return student.train()


def toy_config(**axes: Any) -> Config:
    return Config().model_copy(update={"model": MODEL, **axes})


def streams(seed: int = 0) -> RandomStreams:
    return RandomStreams.of(seed, "contract", 1, torch.device("cpu"))
