"""Image folders: a folder or zip file that contains one subfolder for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from ensdistill.data.entries import FoundEntries, PartEntries
from ensdistill.data.entry_source import EntrySource
from ensdistill.data.layout import Layout, arrange, shared_folders
from ensdistill.data.names import own_path
from ensdistill.data.walk import FoundFiles, by_reason, find_files
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.text import listed, printable
from ensdistill.settings.base import setting


class ImageFolder(EntrySource):
    """Images in folders: `<class>/<image>`; or `train/<class>/<image>` and, optionally, `val/`, `test/`, `unlabeled/`.

    Existing splits are used in full; missing splits are drawn from the labeled images.
    """

    kind: Literal["image_folder"] = "image_folder"
    path: str = setting(..., "Folder or zip file that contains the images.", file=True, min_length=1)

    def entries(self) -> FoundEntries:
        """Returns the image files, and warnings about files that are left out.

        Raises:
            DataError: The path, or a folder below it, cannot be read; the message lists all folders and causes.
        """
        path = own_path(self.path)
        try:
            found = find_files(path)
        except DataError as error:
            raise DataError(f"data.path: {error}") from error
        layout = arrange(found)
        names = sorted(layout.parts["train"].classes)
        numbers = {name: n for n, name in enumerate(names)} | {"": -1}
        parts = {
            name: PartEntries([file for _, file in part.files], [numbers[label] for label, _ in part.files])
            for name, part in layout.parts.items()
            if part.files
        }
        warnings = (*_about_files(found, layout), *self.ignored(_places(layout)))
        return FoundEntries(parts, tuple(names), str(path.resolve()), warnings)


def _about_files(found: FoundFiles, layout: Layout) -> Iterator[ConfigIssue]:
    for sentence in by_reason(layout.left_out):
        yield _issue(sentence)
    if found.renamed:
        rule = f"names of {len(found.renamed)} zip entries have an unknown encoding and are read as cp437"
        yield _issue(f"{rule}: {listed(found.renamed)}", "if they are wrong, zip the folder again with UTF-8 names")
    if shared := shared_folders(found, layout):
        classes = listed(sorted(layout.parts["train"].classes))
        rule = f"the classes are {classes}; their subfolders {listed(shared)} are not separate classes"
        yield _issue(rule, "the expected structure is train/<class>/<image> or <class>/<image>")
    for part in layout.parts.values():
        if not part.files:
            yield _issue(f"{printable(part.folder)}/ contains no image in a class folder and is not used")
        alike = Counter(name.casefold().strip() for name in part.classes)
        if twins := sorted(name for name in part.classes if alike[name.casefold().strip()] > 1):
            yield _issue(
                f"class names differ only in case or spaces: {listed(twins)}", "rename them if they are the same class"
            )
        for name, folders in part.classes.items():
            if len(folders) > 1:
                yield _issue(f"{len(folders)} folders have the class name {name!r} and are read as one class")


def _places(layout: Layout) -> dict[str, tuple[str, int]]:
    """Returns the folder and the number of images of each split, for messages."""
    return {name: (f"{printable(part.folder)}/", len(part.files)) for name, part in layout.parts.items()}


def _issue(rule: str, hint: str | None = None) -> ConfigIssue:
    return ConfigIssue(("data", "path"), rule, hint=hint)
