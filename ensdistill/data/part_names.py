"""Usual names of the splits of a data set, and numbering of classes by name."""

from collections.abc import Iterable, Sequence

from ensdistill.data.names import class_name
from ensdistill.errors import DataError
from ensdistill.runtime.text import counted, listed

PART_NAMES = {  # names are compared regardless of case
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "unlabeled": ("unlabeled", "unlabelled"),
}
PART_OF = {name: part for part, names in PART_NAMES.items() for name in names}


def part_of(name: str) -> str | None:
    """Returns the split to which a usual name refers; None for any other name."""
    return PART_OF.get(name.strip().lower())


def numbered(labels: Iterable[str]) -> dict[str, int]:
    """Numbers the classes in numerical order if all labels are whole numbers, otherwise in alphabetical order.

    Args:
        labels: Labels of the training images.

    Returns:
        The index of each class, from 0, keyed by class name.

    Raises:
        DataError: There are fewer than two classes.
    """
    names = sorted({class_name(label) for label in labels})
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    if len(names) < 2:
        raise DataError(
            f"data: at least two classes are required, but the training images have {counted(len(names), 'class')}: "
            f"{listed(names)}"
        )
    return {name: number for number, name in enumerate(names)}


def unknown_labels(labels: Sequence[str], classes: dict[str, int], part: str) -> None:
    """Raises DataError if a split has labels that no training image has."""
    if missing := sorted({label for label in labels if class_name(label) not in classes}):
        rule = f"the {part} split has labels that no training image has: {listed(missing)}"
        raise DataError(f"data: {rule}; correct them")
