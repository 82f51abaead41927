"""Your own images: a folder, or a zip file of one, with a sub-folder for each class."""

from typing import Literal

import numpy as np
import torch

from ensdistill.data.image_files import ImageFile, images_in
from ensdistill.data.splits import Sizes, Source, Split
from ensdistill.errors import DataError
from ensdistill.files import user_path
from ensdistill.settings import setting

Files = dict[tuple[str, ...], ImageFile]  # by their folders and names


class ImageFolder(Sizes):
    """`<class>/<image>`, or `train/<class>/<image>` beside `test/<class>/<image>` where there is a test part."""

    kind: Literal["image_folder"] = "image_folder"
    path: str = setting(..., "The folder or zip file.", file=True, min_length=1)
    size: int = setting(32, "Side of the square images; others are resized.", ge=4, le=1024)

    def __call__(self) -> Source:
        """Images uint8 (N,3,size,size). Raises DataError naming the path, or the file that is no image."""
        path = user_path(self.path)
        if not path.exists():
            raise DataError(f"data.path: {path} does not exist; give a folder or zip file with one sub-folder a class")
        files = _below_top_folder(images_in(path)) if path.is_file() else {file.parts: file for file in images_in(path)}
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

    def _read(self, files: Files, names: tuple[str, ...]) -> Split:
        images = np.empty((len(files), 3, self.size, self.size), dtype=np.uint8)
        labels = torch.empty(len(files), dtype=torch.long)
        for n, (parts, file) in enumerate(sorted(files.items(), key=lambda item: item[0])):
            if parts[0] not in names:
                raise DataError(f"data.path: class {parts[0]!r} of the test part is not in the training part")
            images[n] = file.pixels((3, self.size, self.size))
            labels[n] = names.index(parts[0])
        return Split(torch.from_numpy(images), labels)


def _below_top_folder(files: list[ImageFile]) -> Files:
    """Without the one folder that holds all the others, as most zip files have one."""
    top = {file.parts[0] for file in files}
    strip = 1 if len(top) == 1 and all(len(file.parts) > 2 for file in files) and top.isdisjoint({"train"}) else 0
    return {file.parts[strip:]: file for file in files}
