"""Image folders: a folder or zip file with one subfolder for each class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Literal

from ensdistill.data.image_files import FRAMES, SHALLOW, ImageError, ImageFile
from ensdistill.data.layout import Layout, Part, arrange, shared_folders
from ensdistill.data.names import own_path
from ensdistill.data.sizes import OwnSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.data.walk import FoundFiles, by_reason, find_files
from ensdistill.errors import ConfigIssue, DataError
from ensdistill.runtime.lazy import np, torch
from ensdistill.runtime.text import SHOWN, counted, listed, printable
from ensdistill.settings.base import setting


class ImageFolder(OwnSizes, DataSource):
    """Images in folders: `<class>/<image>`, or `train/<class>/<image>`, optionally with `val/`, `test/`, `unlabeled/`.

    Existing parts are used completely; missing parts are drawn from the labeled images.
    """

    kind: Literal["image_folder"] = "image_folder"
    path: str = setting(..., "Folder or zip file of the images.", file=True, min_length=1)
    size: int = setting(32, "Side of the square images in pixels; other images are resized.", ge=4, le=1024)

    def __call__(self) -> RawData:
        """Returns images uint8 (N,3,size,size), with warnings about skipped and unusual files.

        Raises:
            DataError: The path, folders or files cannot be read; the message lists all of them with their causes.
        """
        path = own_path(self.path)
        try:
            found = find_files(path)
        except DataError as error:
            raise DataError(f"data.path: {error}") from error
        layout = arrange(found)
        names = tuple(sorted(layout.parts["train"].classes))
        reader = _Reader(self.size)
        splits = {name: reader.read(part, names) for name, part in layout.parts.items() if part.files}
        reader.refuse()
        warnings = (*_about_files(found, layout), *reader.warnings(), *self.ignored(_places(layout)))
        return RawData(
            splits["train"],
            names,
            test=splits.get("test"),
            validation=splits.get("validation"),
            unlabeled=splits.get("unlabeled"),
            warnings=warnings,
        )


class _Reader:
    """Reads the images of all parts and collects the files that cannot be read."""

    def __init__(self, size: int) -> None:
        self.shape = (3, size, size)
        self.broken = defaultdict[str, list[str]](list)  # cause -> names
        self.remarks = defaultdict[str, list[str]](list)  # remark -> names

    def read(self, part: Part, names: tuple[str, ...]) -> Split:
        """Returns the images of one part in the order of their names; unreadable images are black."""
        images = np.zeros((len(part.files), *self.shape), dtype=np.uint8)
        for n, (_, file) in enumerate(part.files):
            self._read_into(images[n], file)
        labels = [names.index(name) if name else -1 for name, _ in part.files]
        return Split(torch.from_numpy(images), torch.tensor(labels, dtype=torch.long))

    def _read_into(self, image: np.ndarray, file: ImageFile) -> None:
        try:
            read = file.read(self.shape)
        except ImageError as error:
            self.broken[error.cause].append(error.name)
            return
        image[:] = read.pixels
        for remark in read.remarks:
            self.remarks[remark].append(file.name)

    def refuse(self) -> None:
        """Raises DataError if images could not be read, with one line for each cause."""
        if self.broken:
            causes = self.broken.items()
            lines = [
                f"{counted(len(names), 'image')} cannot be read: {cause}: {listed(names)}" for cause, names in causes
            ]
            more = [f"and {len(lines) - SHOWN} more causes"] if len(lines) > SHOWN else []
            raise DataError("\n".join(f"data.path: {line}" for line in [*lines[:SHOWN], *more]))

    def warnings(self) -> Iterator[ConfigIssue]:
        """Yields a warning for each remark about files that were read."""
        for remark, names in self.remarks.items():
            hint = {FRAMES: "save each frame as a file to use all of them", SHALLOW: "save them with 8 bits"}[remark]
            yield _issue(f"{counted(len(names), 'file')} with {remark}: {listed(names)}", hint)


def _about_files(found: FoundFiles, layout: Layout) -> Iterator[ConfigIssue]:
    for sentence in by_reason(layout.left_out):
        yield _issue(sentence)
    if found.renamed:
        rule = f"names of {len(found.renamed)} entries of the zip file are in an unknown encoding and read as cp437"
        yield _issue(f"{rule}: {listed(found.renamed)}", "if they are wrong, zip the folder again with UTF-8 names")
    if shared := shared_folders(found, layout):
        classes = listed(sorted(layout.parts["train"].classes))
        rule = f"the classes are {classes}; their subfolders {listed(shared)} are not distinguished"
        yield _issue(rule, "the expected structure is train/<class>/<image> or <class>/<image>")
    for part in layout.parts.values():
        if not part.files:
            yield _issue(f"{printable(part.folder)}/ contains no image in a class folder and is not used")
        alike = Counter(name.casefold().strip() for name in part.classes)
        if twins := sorted(name for name in part.classes if alike[name.casefold().strip()] > 1):
            yield _issue(
                f"class names differ only in case or spaces: {listed(twins)}", "rename them if they are one class"
            )
        for name, folders in part.classes.items():
            if len(folders) > 1:
                yield _issue(f"{len(folders)} folders have the class name {name!r} and are read as one class")


def _places(layout: Layout) -> dict[str, tuple[str, int]]:
    """Returns folder and number of images of each part, for messages."""
    return {name: (f"{printable(part.folder)}/", len(part.files)) for name, part in layout.parts.items()}


def _issue(rule: str, hint: str | None = None) -> ConfigIssue:
    return ConfigIssue(("data", "path"), rule, hint=hint)
