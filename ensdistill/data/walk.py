"""Searches folders and zip files for images; lists every other file with the reason why it is skipped."""

import os
import stat
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ensdistill.data.image_files import SUFFIXES, ImageFile, is_image
from ensdistill.data.zip_names import readable_name
from ensdistill.errors import DataError
from ensdistill.runtime.files import head_of, stand_in
from ensdistill.runtime.text import counted, listed, printable

# Files that operating systems add to folders and zip files; they are ignored silently.
_COMPANIONS = {"__macosx", ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"}

NO_IMAGE = "not an image that Pillow can read"
HIDDEN = "hidden: the name begins with a dot"
BROKEN_LINK = "a broken link"
LOOP = "a link to a folder that contains it"
SPECIAL = "not a regular file"
ZIP_LINK = "a symbolic link in a zip file, which is not followed"
OUTSIDE = "a path outside of the zip file"
REPLACED = "replaced by a later entry with the same name"
DENIED = "permission denied"
TOO_DEEP = "nested in more than 100 folders"
_DEEPEST = 100
_MOST, _TIMES = 100_000, 10  # limits for non-image files: in total, per image; exceeding both is an error
BOTH = "a file with the same name as a folder"
HARMLESS = frozenset({NO_IMAGE, HIDDEN})  # reasons that do not indicate a missing image

_EXTRACT = "extract the archive and give the folder"
_HINTS = dict.fromkeys((".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"), _EXTRACT)
_HINTS[".zip"] = "if it is a zip file, copy it again, because its end may be missing"


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not read.

    Attributes:
        name: Path relative to the root.
        reason: Reason why the file or folder is not read.
    """

    name: str
    reason: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders below the root, followed by the name."""
        return PurePosixPath(self.name).parts


@dataclass
class FoundFiles:
    """Contents of a folder or zip file.

    Attributes:
        root: The folder or zip file.
        files: The images, sorted by name.
        folders: Path components of every folder below the root, including empty folders.
        left_out: Files and folders that are not read.
        unreadable: Files and folders that cannot be examined or listed.
        renamed: Entries of a zip file whose names have an unknown encoding.
    """

    root: Path
    files: list[ImageFile] = field(default_factory=list)
    folders: set[tuple[str, ...]] = field(default_factory=set)
    left_out: list[LeftOut] = field(default_factory=list)
    unreadable: list[LeftOut] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)

    def sorted(self) -> "FoundFiles":
        """Sorts all lists by name, in place, and returns this object."""
        self.files.sort(key=lambda file: file.parts)
        for group in (self.left_out, self.unreadable):
            group.sort(key=lambda one: one.parts)
        return self


def by_reason(left_out: Iterable[LeftOut]) -> Iterator[str]:
    """Yields one sentence for each reason, with the number of files and up to ten names.

    Args:
        left_out: The files and folders that are not read.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for one in left_out:
        groups[one.reason].append(one.name)
    for reason, names in groups.items():
        yield f"{counted(len(names), 'file')} left out ({reason}): {listed(names)}"


def find_files(path: Path) -> FoundFiles:
    """Returns all images in a folder or zip file, at any depth, and the skipped files.

    Links are followed. Every file that Pillow recognizes counts as an image, whatever its suffix. A file with an image
    suffix always counts as an image, so that a damaged image causes an error when it is read.

    Args:
        path: The folder or zip file.

    Raises:
        DataError: The path is neither a folder nor a readable zip file, or almost none of its files are images.
    """
    found = FoundFiles(path)
    if path.is_dir():
        _walk(found, path, (), _around(path))
    else:
        _read_directory(found, _opened(path))
    return found.sorted()


# --- folders ---


def _walk(found: FoundFiles, folder: Path, parts: tuple[str, ...], above: frozenset[tuple[int, int]]) -> None:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.unreadable.append(LeftOut("/".join(parts) or ".", _reason(error)))
        return
    above |= {(status.st_dev, status.st_ino)}
    for entry in entries:
        own = (*parts, entry.name)
        if _is_companion(entry.name):
            continue
        try:
            _add_entry(found, entry, own, above)
        except OSError as error:
            found.unreadable.append(LeftOut("/".join(own), _reason(error)))


def _around(root: Path) -> frozenset[tuple[int, int]]:
    """Returns identifiers of the folders that contain the root; a link to such a folder is a loop."""
    around = set()
    for folder in root.resolve().parents:
        with suppress(OSError):
            status = folder.stat()
            around.add((status.st_dev, status.st_ino))
    return frozenset(around)


def _add_entry(
    found: FoundFiles, entry: os.DirEntry[str], parts: tuple[str, ...], above: frozenset[tuple[int, int]]
) -> None:
    """Adds a folder entry and everything below it; raises OSError if the entry cannot be examined."""
    name = "/".join(parts)
    if entry.name.startswith("."):
        found.left_out.append(LeftOut(name, HIDDEN))
        return
    try:
        status = entry.stat()  # follows links
    except OSError as error:
        if isinstance(error, PermissionError) or not entry.is_symlink():
            raise
        found.left_out.append(LeftOut(name, BROKEN_LINK))
        return
    if stat.S_ISDIR(status.st_mode):
        if (status.st_dev, status.st_ino) in above:
            found.left_out.append(LeftOut(name, LOOP))
        elif len(parts) > _DEEPEST:
            found.left_out.append(LeftOut(name, TOO_DEEP))
        else:
            found.folders.add(parts)
            _walk(found, Path(entry.path), parts, above)
        return
    if not stat.S_ISREG(status.st_mode):
        found.left_out.append(LeftOut(name, SPECIAL))
        return
    _sort_out(found, ImageFile(found.root, name), status.st_size)


def _reason(error: OSError) -> str:
    return DENIED if isinstance(error, PermissionError) else (error.strerror or str(error)).lower()


# --- zip files ---


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        cause = getattr(error, "strerror", None) or error
        if isinstance(error, zipfile.BadZipFile) and (what := stand_in(head_of(path))):
            raise DataError(f"{printable(str(path))} is {what}") from error
        problem = f"{printable(str(path))} is neither a folder nor a readable zip file ({cause})"
        raise DataError(f"{problem}; {_HINTS.get(path.suffix.lower(), 'give a folder or a zip file')}") from error


def _read_directory(found: FoundFiles, archive: zipfile.ZipFile) -> None:
    entries: dict[tuple[str, ...], zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name, known = readable_name(entry)
        parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        if not parts or any(_is_companion(part) for part in parts):
            continue
        if not known:
            found.renamed.append("/".join(parts))
        if reason := _reason_against(entry, parts):
            found.left_out.append(LeftOut("/".join(parts), reason))
            continue
        found.folders.update(parts[:n] for n in range(1, len(parts)))
        if name.endswith(("/", "\\")):
            found.folders.add(parts)
            if entry.file_size:
                found.left_out.append(LeftOut("/".join(parts), BOTH))
            continue
        if parts in entries:
            found.left_out.append(LeftOut("/".join(parts), REPLACED))
        entries[parts] = entry
    for parts, entry in entries.items():
        if parts in found.folders:  # some programs omit the slash after the name of a folder
            found.left_out += [LeftOut("/".join(parts), BOTH)] if entry.file_size else []
        else:
            _sort_out(found, ImageFile(found.root, "/".join(parts), archive, entry), entry.file_size)


def _reason_against(entry: zipfile.ZipInfo, parts: tuple[str, ...]) -> str | None:
    if ".." in parts:
        return OUTSIDE
    if any(part.startswith(".") for part in parts):
        return HIDDEN
    if stat.S_ISLNK(entry.external_attr >> 16):
        return ZIP_LINK
    return None


# --- both ---


def _is_companion(name: str) -> bool:
    return name.lower() in _COMPANIONS or name.startswith("._")


def _sort_out(found: FoundFiles, file: ImageFile, size: int) -> None:
    """Adds a file to the images or to the skipped files.

    Files of size 0 are not opened, because files in /proc also have size 0, and reading them may never end.

    Raises:
        DataError: Far more files have been skipped than recognized as images.
    """
    if PurePosixPath(file.name).suffix.lower() in SUFFIXES or (size and _content_is_image(file)):
        found.files.append(file)
        return
    found.left_out.append(LeftOut(file.name, NO_IMAGE))
    if len(found.left_out) > max(_MOST, _TIMES * len(found.files)):
        given = f"{counted(len(found.files), 'image')} and more than {_MOST:,} other files"
        raise DataError(f"{printable(str(found.root))} contains {given}; give a folder that contains only the images")


def _content_is_image(file: ImageFile) -> bool:
    """Returns whether the first bytes identify an image; true for an unreadable file, so that its error is reported."""
    try:
        with file.open() as stream:
            return is_image(stream, file.name)
    except Exception:  # the file system, the zip module and decoders raise different exceptions
        return True
