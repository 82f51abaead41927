"""Images in a file that all processes on a machine read through the page cache, without a private copy."""

from __future__ import annotations

import fcntl
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensdistill.errors import DataError
from ensdistill.runtime.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor

    Index = Tensor | np.ndarray | slice | int

IMAGES, HASHES, LEVELS = "images.npy", "hashes.npy", "levels.npy"  # files of a store, each with one NumPy array
GPU_SHARE = 4  # images are copied to a GPU if they require at most 1/GPU_SHARE of its free memory


class StoreFile:
    """The image file of one store, opened by this process.

    While the file is open, the process holds a shared lock, so that `ensdistill-tune clean` does not remove the store.
    A process that unpickles this object opens the file when it reads the first image.

    Attributes:
        folder: Folder of the store.
        shape: Shape (N,C,H,W) of all images in the store.
    """

    def __init__(self, folder: Path) -> None:
        """Opens a store.

        Raises:
            DataError: The store is missing or damaged.
        """
        self.folder = folder
        self._start, self.shape = _header(folder / IMAGES)
        _ = self._descriptor

    @property
    def available(self) -> bool:
        """Whether the store exists on this machine."""
        return (self.folder / IMAGES).is_file()

    def read_into(self, row: np.ndarray, number: int) -> None:
        """Reads one image.

        Args:
            row: Array that receives the pixels, uint8 (C*H*W,).
            number: Index of the image in the store.
        """
        if os.preadv(self._descriptor, [row.data], self._start + number * row.nbytes) != row.nbytes:
            raise DataError(f"{self.folder}: the decoded images are truncated; remove this folder and start again")

    @cached_property
    def _descriptor(self) -> int:
        try:
            opened = os.open(self.folder / IMAGES, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            rule = f"{self.folder}: the decoded images are missing ({error.strerror})"
            raise DataError(f"{rule}; start again to rebuild them") from error
        fcntl.flock(opened, fcntl.LOCK_SH)
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_descriptor"}

    def __del__(self) -> None:
        if "_descriptor" in vars(self):
            os.close(vars(self).pop("_descriptor"))


class SharedImages:
    """A selection of uint8 images (N,C,H,W) from a store, in any order; the images are not copied.

    The images are read at their positions in the file, not through a memory map. As with a memory map, processes share
    the page cache. Unlike mapped pages, cached pages do not count towards the memory of a process. Because there are no
    page faults, a batch of 64 images of 224x224 pixels is read in a quarter of the time that a memory map requires.

    Attributes:
        file: The store.
        index: Indices of the selected images in the store, int64 (N,).
    """

    def __init__(self, file: StoreFile, index: np.ndarray | None = None, device: str = "cpu") -> None:
        """Selects images from a store.

        Args:
            file: The store.
            index: Indices of the images; None selects all images in the order of the store.
            device: Device of the tensors returned by indexing.
        """
        self.file, self._device = file, device
        self.index = np.arange(file.shape[0]) if index is None else index

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (N,C,H,W) of the selection."""
        return (len(self.index), *self.file.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels, uint8."""
        return torch.uint8

    @property
    def device(self) -> torch.device:
        """Device of the tensors returned by indexing."""
        return torch.device(self._device)

    @property
    def nbytes(self) -> int:
        """Size of the selected images in bytes."""
        return int(np.prod(self.shape, dtype=np.int64))

    def dim(self) -> int:
        """Returns the number of dimensions, four."""
        return 4

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, chosen: Index) -> Tensor:
        """Returns the images at the given positions in the selection, uint8 (B,C,H,W); (C,H,W) for a single index."""
        if isinstance(chosen, int):
            return self.read([chosen])[0].to(self.device)
        return self.read(chosen).to(self.device, non_blocking=True)

    def read(self, chosen: Any) -> Tensor:
        """Returns uint8 images (B,C,H,W) on the CPU, in pinned memory if the device is a GPU.

        Args:
            chosen: Positions of the images in the selection.
        """
        numbers, shape = self.index[_on_host(chosen)], self.file.shape[1:]
        images = torch.empty((len(numbers), *shape), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for row, number in zip(images.flatten(1).numpy(), numbers.tolist(), strict=True):
            self.file.read_into(row, number)
        return images

    def take(self, chosen: Index) -> SharedImages:
        """Returns a subset of this selection."""
        return SharedImages(self.file, self.index[_on_host(chosen)], self._device)

    def to(self, device: torch.device | str) -> Tensor | SharedImages:
        """Returns images for use on a device: a copy in GPU memory if it fits, otherwise a selection without a copy.

        Args:
            device: The device.
        """
        device = torch.device(device)
        if device.type == "cuda" and self.nbytes <= torch.cuda.mem_get_info(device)[0] // GPU_SHARE:
            return self.copied(device)
        return SharedImages(self.file, self.index, str(device))

    def copied(self, device: torch.device | str) -> Tensor:
        """Returns all images in the memory of a device."""
        images = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), 256):
            images[start : start + 256] = self.read(slice(start, start + 256)).to(device)
        return images

    def hashes(self) -> list[bytes]:
        """Returns the hash of the pixels of each image; see `image_facts`."""
        return [row.tobytes() for row in np.load(self.file.folder / HASHES, mmap_mode="r")[self.index]]

    def levels(self) -> np.ndarray:
        """Returns the channel sums and the largest value of each image, int64 (N,2C+1); see `image_facts`."""
        levels: np.ndarray = np.load(self.file.folder / LEVELS, mmap_mode="r")[self.index]
        return levels


def joined(parts: list[Tensor | SharedImages]) -> Tensor | SharedImages:
    """Returns the images of several splits as one object; does not copy them if all are in the same store."""
    shared = [part for part in parts if isinstance(part, SharedImages)]
    if len(shared) == len(parts) and len({part.file.folder for part in shared}) == 1:
        return SharedImages(shared[0].file, np.concatenate([part.index for part in shared]), str(shared[0].device))
    return torch.cat([part[:] for part in parts])


def _on_host(chosen: Any) -> Any:
    return chosen.cpu().numpy() if isinstance(chosen, torch.Tensor) else chosen


def _header(file: Path) -> tuple[int, tuple[int, ...]]:
    """Returns the position of the first pixel in the file, and the shape of the array."""
    try:
        with file.open("rb") as opened:
            np.lib.format.read_magic(opened)
            shape, _, _ = np.lib.format.read_array_header_1_0(opened)
            return opened.tell(), shape
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}); remove its folder and start again") from error
