"""Exported files accept images of any size and resize them like training images, with Pillow as the reference."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from ensdistill import DistillationRun, ExportError, load_config
from ensdistill.data.image_files import Resize
from ensdistill.data.resizing import resize
from ensdistill.export import network_files, student_file
from ensdistill.export.classifier import open_onnx, open_pt2
from ensdistill.export.student_file import DeployableClassifier
from tests.unit.core.export.test_exporter import colored

SIDE = 16
SIZES = [(40, 40), (40, 900), (97, 41), (300, 451), (640, 427), (899, 40), (900, 900), (SIDE, SIDE), (1, 7)]
BOTH_WAYS = sorted({size[::way] for size in SIZES for way in (1, -1)})
RESIZES: list[Resize] = ["squash", "center_crop", "pad"]


class Pixels(nn.Module):
    """A network whose logits are its input pixels multiplied by a gain."""

    def __init__(self, gain: float = 1) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x.flatten(1)


def run_of(network: nn.Module) -> DistillationRun:
    """Returns a run whose student accepts color images of 16x16 pixels."""
    config = load_config("kd", ["data.train_size=40", "training.batch_size=10"])
    return DistillationRun(config, colored(), network, "strangers")


def by_pillow(image: Image.Image, kind: Resize, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """Returns the image (C,H,W) as cropped, padded and resized by Pillow."""
    fit = {"squash": Image.Image.resize, "center_crop": ImageOps.fit, "pad": ImageOps.pad}[kind]
    return np.asarray(fit(image, size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1).astype(float)


@pytest.mark.parametrize("kind", RESIZES)
def test_images_resized_by_exported_files_differ_from_those_of_pillow_by_at_most_one_gray_level(
    kind: Resize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student_file, "resize_of", lambda config: kind)
    network_files.write_networks(run_of(Pixels()), tmp_path, ("pt2", "onnx"))
    generator = np.random.default_rng(0)
    for file in (open_onnx(tmp_path / "student.onnx"), open_pt2(tmp_path / "student.pt2")):
        for size in BOTH_WAYS:
            pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            seen = 255 * file.answer(pixels[None])[0].reshape(3, SIDE, SIDE)
            assert np.abs(seen - by_pillow(Image.fromarray(pixels), kind)).max() < 1.001, (file.path.name, size)


@pytest.mark.parametrize("kind", RESIZES)
def test_images_of_any_size_are_resized_to_any_aspect_ratio_as_in_pillow(kind: Resize) -> None:
    for n, (size, new) in enumerate(product([(60, 90), (31, 7), (3, 200)], [(6, 12), (33, 8), (50, 50)])):
        pixels = np.random.default_rng(n).integers(0, 256, (*size, 3), dtype=np.uint8)
        seen = resize(torch.from_numpy(pixels).permute(2, 0, 1)[None], new, kind)[0].numpy()
        assert np.abs(seen - by_pillow(Image.fromarray(pixels), kind, new)).max() <= 1, (size, new)


def test_a_file_that_resizes_differently_from_the_student_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = network_files._program
    monkeypatch.setattr(
        network_files, "_program", lambda s, run: trace(DeployableClassifier(s.network, run.shape, "pad"), run)
    )
    with pytest.raises(ExportError, match=r"student\.pt2: differs from the student by 0\..* of a resized image"):
        network_files.write_networks(run_of(Pixels(gain=50)), tmp_path, ("pt2",))
