"""CIFAR-10 and CIFAR-100 from their original files: 60,000 color images of 32x32 pixels each."""

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
    path: str = setting(
        ..., "The folder that holds the original files, unpacked or as .tar.gz.", file=True, min_length=1
    )
    download: bool = setting(False, "Fetch the original files if they are not there.")

    def _source(self, dataset: Any) -> RawData:
        """Reads both parts with a torchvision class, which checks the MD5 sum of each file before it unpickles it."""
        root = user_path(self.path)
        if root.name in (dataset.base_folder, dataset.filename):  # the very folder or archive was given
            root = root.parent
        try:
            pool, test = self._parts(dataset, root)
        except (RuntimeError, OSError, EOFError, tarfile.TarError) as error:
            raise DataError(self._fault(dataset, root, error)) from error
        return RawData(_split(pool), tuple(pool.classes), _split(test))

    def _parts(self, dataset: Any, root: Path) -> tuple[Any, Any]:
        from torchvision.datasets.utils import check_integrity

        # torchvision's `download` unpacks an archive that is already there and whole without going to the network
        fetch = self.download or check_integrity(root / dataset.filename, dataset.tgz_md5)
        return dataset(root, train=True, download=fetch), dataset(root, train=False)

    def _fault(self, dataset: Any, root: Path, error: Exception) -> str:
        if self.download:
            return (
                f"data.download: {dataset.url} could not be brought to {root} ({error}); "
                f"put {dataset.filename} there by hand, and remove {dataset.base_folder} if it is damaged"
            )
        return (
            f"data.path: {root} holds neither a whole {dataset.base_folder} nor a whole {dataset.filename} ({error}); "
            f"put {dataset.url} there, or set data.download to true"
        )


class Cifar10(_Cifar):
    """Ten classes, `cifar-10-batches-py`. Krizhevsky 2009, Learning multiple layers of features from tiny images."""

    kind: Literal["cifar10"] = "cifar10"

    def __call__(self) -> RawData:
        """50,000 images of the training part as pool, its own 10,000 for the test; uint8 (N,3,32,32).

        Raises DataError if the files are not there or not the original ones. Nothing is fetched unless asked for.
        """
        from torchvision.datasets import CIFAR10

        return self._source(CIFAR10)


class Cifar100(_Cifar):
    """A hundred classes (the fine labels), `cifar-100-python`. Krizhevsky 2009, as CIFAR-10."""

    kind: Literal["cifar100"] = "cifar100"

    def __call__(self) -> RawData:
        """50,000 images of the training part as pool, its own 10,000 for the test; uint8 (N,3,32,32).

        Raises DataError if the files are not there or not the original ones. Nothing is fetched unless asked for.
        """
        from torchvision.datasets import CIFAR100

        return self._source(CIFAR100)


def _split(part: Any) -> Split:
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(part.targets, dtype=torch.long))
