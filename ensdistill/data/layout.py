"""Assignment of folders to the splits and classes of a data set."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ensdistill.data.image_files import ImageFile
from ensdistill.data.names import class_name, is_text
from ensdistill.data.part_names import PART_NAMES, PART_OF
from ensdistill.data.walk import FoundFiles, LeftOut, by_reason
from ensdistill.errors import DataError
from ensdistill.runtime.text import counted, listed, printable
from ensdistill.settings.validation import closest_match

_STEMS = ("train", "val", "test")  # prefixes of unusual names that probably denote a split: test_set, train2017

NO_CLASS = "not in a class folder"
NO_PART = "in a folder next to train/ that is not val/, test/ or unlabeled/"


@dataclass
class Part:
    """The images of one split.

    Attributes:
        folder: Path relative to the root; "" for the root itself.
        files: Class and file of each image; the class is "" in a split without labels.
        classes: Folders of each class, keyed by class name.
    """

    folder: str
    files: list[tuple[str, ImageFile]] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Layout:
    """The splits in a folder or zip file.

    Attributes:
        parts: The splits, keyed by name; `train` always exists.
        left_out: Files and folders that are not part of any split.
    """

    parts: dict[str, Part]
    left_out: list[LeftOut]


def arrange(found: FoundFiles) -> Layout:
    """Returns the splits in a folder or zip file that contains `<class>/...`, or `train/<class>/...` and other splits.

    Outer folders that contain everything else are ignored. All images below a class folder, at any depth, belong to
    that class.

    Args:
        found: The files of the folder or zip file.

    Raises:
        DataError: A folder cannot be read, a class has no image, or the splits are ambiguous. All errors are reported
            together.
    """
    if found.unreadable:
        raise DataError("\n".join(f"data.path: {line}" for line in _unreadable(found)))
    depth = _depth(found)
    parts = _parts(found, depth)
    layout = Layout(parts, list(found.left_out))
    by_folder = {part.folder: name for name, part in parts.items()}
    for file in found.files:
        _place(layout, file, *_part_of(by_folder, file.parts, depth))
    for folder in sorted(found.folders):
        name, above = _part_of(by_folder, folder, depth)
        if name not in (None, "unlabeled") and len(folder) == above + 1:
            parts[str(name)].classes.setdefault(class_name(folder[-1]), []).append("/".join(folder))
    if errors := list(_errors(found, layout)):
        raise DataError("\n".join(f"data.path: {error}" for error in errors))
    return layout


def shared_folders(found: FoundFiles, layout: Layout) -> list[str]:
    """Returns the names of subfolders that exist in several classes.

    Such folders may be the actual classes (`day/cat` and `night/cat`), or splits (`cat/train` and `dog/train`).

    Args:
        found: The files of the folder or zip file.
        layout: The splits of the folder or zip file.

    Returns:
        The names, sorted; empty if there are fewer than two, or if a training image lies directly in a class folder.
    """
    part = layout.parts["train"]
    depth = len(PurePosixPath(part.folder).parts)
    if any(len(file.parts) == depth + 2 for _, file in part.files):
        return []
    classes = {folder for folders in part.classes.values() for folder in folders}
    names = Counter(folder[-1] for folder in found.folders if "/".join(folder[:-1]) in classes)
    shared = sorted(name for name, count in names.items() if count > 1)
    return shared if len(shared) > 1 else []


def _prefix(found: FoundFiles, depth: int) -> tuple[str, ...]:
    return next((folder[:depth] for folder in found.folders if len(folder) >= depth), ())


def _depth(found: FoundFiles) -> int:
    """Returns the number of outer folders that contain everything; most zip files have one such folder."""
    depth = 0
    while True:
        tops = {folder[depth] for folder in found.folders if len(folder) > depth}
        inside = any(len(folder) > depth + 1 for folder in found.folders)
        loose = any(len(file.parts) == depth + 2 for file in found.files)  # possibly the images of one class
        if len(tops) != 1 or loose or not inside or tops.pop().lower() in PART_OF:
            return depth
        depth += 1


def _parts(found: FoundFiles, depth: int) -> dict[str, Part]:
    """Returns the splits, keyed by name; if `train/` has no class folders, every top-level folder is a class."""
    prefix = _prefix(found, depth)
    tops = sorted({folder[depth] for folder in found.folders if len(folder) > depth})
    named = [top for top in tops if top.lower() in PART_OF]
    with_classes = {folder[depth] for folder in found.folders if len(folder) == depth + 2}
    if not any(PART_OF[top.lower()] == "train" and top in with_classes for top in named):
        if doubtful := _doubtful(found, depth, tops):
            given = f"{_root(found)} has {listed(doubtful)}, but no class folders below train/"
            needed = "train/<class>/<image>, and optionally val/, test/ and unlabeled/ next to train/"
            raise DataError(f"data.path: {given}; give {needed}")
        named = [top for top in named if PART_OF[top.lower()] == "unlabeled"]
    parts = dict[str, Part]()
    for top in named:
        part = PART_OF[top.lower()]
        if part in parts:
            both = f"{printable(parts[part].folder)}/ and {printable('/'.join((*prefix, top)))}/"
            raise DataError(f"data.path: {both} are the same split ({part}); keep one of them")
        parts[part] = Part("/".join((*prefix, top)))
    parts.setdefault("train", Part("/".join(prefix)))
    return {name: parts[name] for name in PART_NAMES if name in parts}


def _doubtful(found: FoundFiles, depth: int, tops: list[str]) -> list[str]:
    """Returns top-level folders that are probably splits although train/ has no class folders: val/, test_set/, ..."""
    direct = {file.parts[depth] for file in found.files if len(file.parts) == depth + 2}
    labeled = [top for top in tops if PART_OF.get(top.lower()) != "unlabeled"]
    exact = [top for top in labeled if top.lower() in PART_OF]
    if exact == labeled and exact:
        return exact  # all folders are splits, but train/ has no class folders
    deep = [top for top in labeled if top not in direct]
    alike = [top for top in deep if any(word.startswith(_STEMS) for word in re.split("[^a-z]+", top.lower()))]
    return alike if len(alike) > 1 else [top for top in alike if top in exact]


def _part_of(by_folder: dict[str, str], parts: tuple[str, ...], depth: int) -> tuple[str | None, int]:
    """Returns the split of a file or folder, and the number of folders above the class folders of this split."""
    for above in (depth + 1, depth):
        name = by_folder.get("/".join(parts[:above])) if len(parts) >= above else None
        if name is not None:
            return name, above
    return None, depth + 1


def _place(layout: Layout, file: ImageFile, name: str | None, above: int) -> None:
    """Adds an image to its split and class, or to the list of skipped files."""
    if name is None:
        layout.left_out.append(LeftOut(file.name, NO_PART if len(file.parts) > above else NO_CLASS))
    elif name == "unlabeled":
        layout.parts[name].files.append(("", file))
    elif len(file.parts) < above + 2:
        layout.left_out.append(LeftOut(file.name, NO_CLASS))
    else:
        layout.parts[name].files.append((class_name(file.parts[above]), file))


def _errors(found: FoundFiles, layout: Layout) -> Iterator[str]:
    for part in layout.parts.values():
        read = {name for name, _ in part.files}
        for name, folders in part.classes.items():
            if not is_text(name):
                yield f"the name of class folder {printable(folders[0])} is not UTF-8; rename it"
            elif name not in read:
                yield _nothing_read(layout, folders[0])
    names = layout.parts["train"].classes
    if len(names) < 2:
        given = f"{_root(found)} contains images of {counted(len(names), 'class')}"
        yield f"{given}; at least two subfolders are required{_hint(layout)}"
    for part in layout.parts.values():
        yield from _unknown(part, layout.parts["train"])


def _unknown(part: Part, train: Part) -> Iterator[str]:
    """Yields an error if a split has classes that the training split lacks."""
    if unknown := sorted(set(part.classes) - set(train.classes)):
        folder, other = printable(part.folder), printable(train.folder)
        near = closest_match(unknown[0], train.classes)
        hint = f"did you mean {printable(near)}?" if near else f"add them to {other}/ or remove them"
        yield f"{counted(len(unknown), 'class')} in {folder}/ missing from {other}/: {listed(unknown)}; {hint}"


def _unreadable(found: FoundFiles) -> Iterator[str]:
    """Yields one error for each reason why files or folders cannot be read."""
    reasons = defaultdict[str, list[str]](list)
    for one in found.unreadable:
        reasons[one.reason].append(one.name)
    for reason, names in reasons.items():
        several = "1 file or folder" if len(names) == 1 else f"{len(names)} files or folders"
        yield f"{several} of {_root(found)} cannot be read ({reason}): {listed(names)}"


def _nothing_read(layout: Layout, folder: str) -> str:
    depth = len(folder.split("/"))
    inside = [one for one in layout.left_out if "/".join(one.parts[:depth]) == folder]
    why = "; ".join(by_reason(inside)) or "it is empty"
    return f"no image in class folder {printable(folder)} ({why}); add images or remove the folder"


def _hint(layout: Layout) -> str:
    return f" ({'; '.join(by_reason(layout.left_out))})" if layout.left_out else ""


def _root(found: FoundFiles) -> str:
    return printable(str(found.root))
