"""How many images each part of a data set has: counts or shares."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from ensdistill.errors import ConfigIssue
from ensdistill.settings.base import Settings, setting

_RULE = "must be a whole number of at least 1 (a count) or a number strictly between 0 and 1 (a share)"


def _size(value: Any) -> int | float:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if (whole and value >= 1) or (isinstance(value, float) and 0 < value < 1):
        return value  # type: ignore[no-any-return]
    every = value == 1 and value is not True
    hint = "; for all images that the other parts leave, set data.train_size to null" if every else ""
    raise ValueError(f"{_RULE}, got {value!r}{hint}")


def _size_or_none(value: Any) -> int | float:
    return 0 if value == 0 and isinstance(value, int) and not isinstance(value, bool) else _size(value)


def _schema(least: int) -> WithJsonSchema:
    share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least}, share]})


Size = Annotated[int | float, PlainValidator(_size), _schema(1)]
SizeOrNone = Annotated[int | float, PlainValidator(_size_or_none), _schema(0)]


class SplitSizes(Settings):
    """How many images go where; drawn from the pool in its own shares of classes. What is left is unlabeled.

    A share is one of the whole pool, and gives at least one image a class.
    """

    seed: int = setting(0, "Seed of the split.", ge=0, le=2**32 - 1)
    train_size: Size | None = setting(
        45_000, "Labeled training images: a count, a share, or null for all that are left."
    )
    val_size: Size = setting(5_000, "Images for choosing settings: a count or a share.")
    test_size: SizeOrNone = setting(
        0, "Number of test images: a count or a share; ignored where the source has a test part of its own."
    )

    def sizes(self) -> "SplitSizes":
        """These four values alone."""
        return SplitSizes(seed=self.seed, train_size=self.train_size, val_size=self.val_size, test_size=self.test_size)


class OwnSizes(SplitSizes):
    """Sizes for images of any number, which may be in parts already."""

    train_size: Size | None = setting(
        None, "Labeled training images: a count, a share of the labeled images, or null for all that are left."
    )
    val_size: Size = setting(
        0.1, "Images for choosing settings: a count or a share of the labeled images; ignored where there is a part."
    )
    test_size: SizeOrNone = setting(
        0.1, "Number of test images: a count or a share of the labeled images; ignored where there is a test part."
    )

    def ignored(self, own: Mapping[str, tuple[str, int]]) -> Iterator[ConfigIssue]:
        """Yields a warning for each size that is set but not used.

        Args:
            own: Place and number of images of each part that the source has.
        """
        for part, name in (("validation", "val_size"), ("test", "test_size")):
            value = getattr(self, name)
            if part in own and value != type(self).model_fields[name].default and value != own[part][1]:
                place, count = own[part]
                hint = f"the {count} images of {place} are the {part} images; remove the setting or {place}"
                yield ConfigIssue(("data", name), "is not used", value, hint)


def count_of(size: int | float, pool: int, classes: int) -> int:
    """The number of images of a count or share of a pool."""
    return size if isinstance(size, int) else max(round(size * pool), classes)
