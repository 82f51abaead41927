"""CIFAR-10 and CIFAR-100 from the original files: 60,000 color images of 32x32 pixels in each data set."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any, Literal

from ensdistill.data.sizes import SplitSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.errors import DataError
from ensdistill.runtime.files import user_path
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting


class _Cifar(SplitSizes, DataSource):
    path: str = setting(..., "Folder with the original files, unpacked or as .tar.gz.", file=True, min_length=1)
    download: bool = setting(False, "Download the original files if they are missing.")

    def _source(self, dataset: Any) -> RawData:
        """Reads both splits with a torchvision class, which checks the MD5 sum of each file before unpickling it."""
        root = user_path(self.path)
        if root.name in (dataset.base_folder, dataset.filename):  # `path` is the data folder or archive itself
            root = root.parent
        try:
            pool, test = self._parts(dataset, root)
        except (RuntimeError, OSError, EOFError, tarfile.TarError) as error:
            raise DataError(self._error(dataset, root, error)) from error
        return RawData(_split(pool), tuple(pool.classes), _split(test))

    def _parts(self, dataset: Any, root: Path) -> tuple[Any, Any]:
        from torchvision.datasets.utils import check_integrity

        # torchvision's `download` unpacks an existing, complete archive without network access
        fetch = self.download or check_integrity(root / dataset.filename, dataset.tgz_md5)
        return dataset(root, train=True, download=fetch), dataset(root, train=False)

    def _error(self, dataset: Any, root: Path, error: Exception) -> str:
        if self.download:
            return (
                f"data.download: {dataset.url} could not be downloaded to {root} ({error}); "
                f"copy {dataset.filename} there manually, and remove {dataset.base_folder} if it is damaged"
            )
        return (
            f"data.path: {root} contains neither a complete {dataset.base_folder} nor a complete {dataset.filename} "
            f"({error}); save {dataset.url} there, or set data.download to true"
        )


class Cifar10(_Cifar):
    """CIFAR-10 with ten classes, from the original files in `cifar-10-batches-py`.

    References:
        Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """

    kind: Literal["cifar10"] = "cifar10"

    def __call__(self) -> RawData:
        """Returns the 50,000 training images, as the pool, and the 10,000 test images; all are uint8 (N,3,32,32).

        Files are downloaded only if `download` is true.

        Raises:
            DataError: The files are missing or differ from the original files.
        """
        from torchvision.datasets import CIFAR10

        return self._source(CIFAR10)


class Cifar100(_Cifar):
    """CIFAR-100 with its 100 fine labels as classes, from the original files in `cifar-100-python`.

    References:
        Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """

    kind: Literal["cifar100"] = "cifar100"

    def __call__(self) -> RawData:
        """Returns the 50,000 training images, as the pool, and the 10,000 test images; all are uint8 (N,3,32,32).

        Files are downloaded only if `download` is true.

        Raises:
            DataError: The files are missing or differ from the original files.
        """
        from torchvision.datasets import CIFAR100

        return self._source(CIFAR100)


def _split(part: Any) -> Split:
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(part.targets, dtype=torch.long))
