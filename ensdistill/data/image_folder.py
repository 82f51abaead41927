"""Your own images: a folder, or a zip file of one, with a sub-folder for each class."""

import io
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ensdistill.data.splits import Sizes, Source, Split
from ensdistill.errors import DataError
from ensdistill.settings import setting

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"}


class ImageFolder(Sizes):
    """`<class>/<image>`, or `train/<class>/<image>` beside `test/<class>/<image>` where there is a test part."""

    kind: Literal["image_folder"] = "image_folder"
    path: str = setting(..., "The folder or zip file.", min_length=1)
    size: int = setting(32, "Side of the square images; others are resized.", ge=4, le=1024)

    def __call__(self) -> Source:
        """Images uint8 (N,3,size,size). Raises DataError naming the path, or the file that is no image."""
        path = Path(self.path).expanduser()
        if not path.exists():
            raise DataError(f"data.path: {path} does not exist; give a folder or zip file with one sub-folder a class")
        files = _zip_files(path) if path.is_file() else _folder_files(path)
        if any(parts[0] == "train" and len(parts) == 3 for parts in files):
            pool = {parts[1:]: read for parts, read in files.items() if parts[0] == "train"}
            test = {parts[1:]: read for parts, read in files.items() if parts[0] == "test"}
        else:
            pool, test = files, {}
        pool = {parts: read for parts, read in pool.items() if len(parts) == 2}
        names = tuple(sorted({parts[0] for parts in pool}))
        if len(names) < 2:
            raise DataError(f"data.path: {path} holds images of {len(names)} classes; two sub-folders are the least")
        return Source(self._read(pool, names), names, self._read(test, names) if test else None)

    def _read(self, files: "dict[tuple[str, ...], _File]", names: tuple[str, ...]) -> Split:
        images = np.empty((len(files), 3, self.size, self.size), dtype=np.uint8)
        labels = torch.empty(len(files), dtype=torch.long)
        for n, (parts, file) in enumerate(sorted(files.items(), key=lambda item: item[0])):
            if parts[0] not in names:
                raise DataError(f"data.path: class {parts[0]!r} of the test part is not in the training part")
            images[n] = file.pixels(self.size)
            labels[n] = names.index(parts[0])
        return Split(torch.from_numpy(images), labels)


class _File:
    def __init__(self, container: "Path | zipfile.ZipFile", name: str) -> None:
        self.container, self.name = container, name

    def pixels(self, size: int) -> np.ndarray:
        """RGB, (3,size,size)."""
        try:
            if isinstance(self.container, Path):
                raw = (self.container / self.name).read_bytes()
            else:
                raw = self.container.read(self.name)
            image = Image.open(io.BytesIO(raw)).convert("RGB")
        except Exception as error:  # decoders name a dozen different errors for a damaged file
            raise DataError(f"data.path: {self.name} is not a readable image: remove or replace it") from error
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image).transpose(2, 0, 1)


def _folder_files(root: Path) -> dict[tuple[str, ...], _File]:
    found = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    return {file.parts: _File(root, str(file)) for file in found if _is_image(file)}


def _zip_files(path: Path) -> dict[tuple[str, ...], _File]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"data.path: {path} is neither a folder nor a readable zip file") from error
    names = [name for name in map(Path, archive.namelist()) if _is_image(name)]
    top = {name.parts[0] for name in names}
    strip = 1 if len(top) == 1 and all(len(name.parts) > 2 for name in names) and top.isdisjoint({"train"}) else 0
    return {name.parts[strip:]: _File(archive, str(name)) for name in names}


def _is_image(file: Path) -> bool:
    """By its name; what the Mac's archiver adds (`__MACOSX/`, `._name`) and other hidden files are none."""
    return file.suffix.lower() in SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in file.parts)
