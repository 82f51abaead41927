"""Sizes of the splits of a data set: counts or shares."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from ensdistill.errors import ConfigIssue
from ensdistill.settings.base import Settings, setting

SETTING_OF = {"train": "train_size", "validation": "val_size", "test": "test_size"}  # size setting of each split
_RULE = "must be a whole number of at least 1 (a count) or a number strictly between 0 and 1 (a share)"


def _size(value: Any) -> int | float:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if (whole and value >= 1) or (isinstance(value, float) and 0 < value < 1):
        return value  # type: ignore[no-any-return]
    every = value == 1 and value is not True
    hint = "; to use all remaining images, set data.train_size to null" if every else ""
    raise ValueError(f"{_RULE}, got {value!r}{hint}")


def _size_or_none(value: Any) -> int | float:
    return 0 if value == 0 and isinstance(value, int) and not isinstance(value, bool) else _size(value)


def _schema(least: int) -> WithJsonSchema:
    share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least}, share]})


Size = Annotated[int | float, PlainValidator(_size), _schema(1)]
SizeOrNone = Annotated[int | float, PlainValidator(_size_or_none), _schema(0)]


class SplitSizes(Settings):
    """Sizes of the splits that are drawn from the labeled images of a source.

    Splits are stratified by class. A share is a fraction of all labeled images and yields at least one image per class.
    Images that are not drawn for any split are used as unlabeled images.
    """

    seed: int = setting(0, "Seed of the split.", ge=0, le=2**32 - 1)
    train_size: Size | None = setting(
        45_000, "Number of labeled training images: a count, a share, or null for all remaining images."
    )
    val_size: Size = setting(5_000, "Number of validation images: a count or a share.")
    test_size: SizeOrNone = setting(
        0, "Number of test images: a count or a share; ignored if the source has a test split."
    )

    def sizes(self) -> "SplitSizes":
        """Returns the seed and the three sizes, without the other settings of the source."""
        return SplitSizes(seed=self.seed, train_size=self.train_size, val_size=self.val_size, test_size=self.test_size)


class OwnSizes(SplitSizes):
    """Split sizes for data sets with any number of images, which may already contain validation and test splits."""

    train_size: Size | None = setting(
        None,
        "Number of labeled training images: a count, a share of the labeled images, or null for all remaining images.",
    )
    val_size: Size = setting(
        0.1,
        "Number of validation images: a count or a share of the labeled images; ignored if the data have a validation "
        "split.",
    )
    test_size: SizeOrNone = setting(
        0.1, "Number of test images: a count or a share of the labeled images; ignored if the data have a test split."
    )

    def ignored(self, own: Mapping[str, tuple[str, int]]) -> Iterator[ConfigIssue]:
        """Yields a warning for each size that is set but has no effect.

        Args:
            own: The splits that the source contains, keyed by name; each value is the folder or array of the split
                (for messages) and the number of images.
        """
        for part, name in (("validation", "val_size"), ("test", "test_size")):
            value = getattr(self, name)
            if part in own and value != type(self).model_fields[name].default and value != own[part][1]:
                place, count = own[part]
                hint = f"the {count} images of {place} are the {part} images; remove the setting or {place}"
                yield ConfigIssue(("data", name), "is not used", value, hint)


def count_of(size: int | float, pool: int, classes: int) -> int:
    """Converts a size to a number of images.

    Args:
        size: A count or a share.
        pool: Number of labeled images.
        classes: Number of classes; a share yields at least this number of images.
    """
    return size if isinstance(size, int) else max(round(size * pool), classes)
