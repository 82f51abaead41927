"""Exported files take images of any size and resize them as training images are resized; Pillow is the oracle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ensdistill import DistillationRun, ExportError, load_config
from ensdistill.data.fitting import Resize
from ensdistill.export import network_files, student_file
from ensdistill.export.classifier import open_onnx, open_pt2
from ensdistill.export.student_file import DeployableClassifier
from tests.unit.core.export.test_exporter import colored

SIDE = 16
SIZES = [(40, 40), (40, 900), (97, 41), (300, 451), (640, 427), (899, 40), (900, 900), (SIDE, SIDE), (2, 7)]
BOTH_WAYS = sorted({size[::way] for size in SIZES for way in (1, -1)})
RESIZES: list[Resize] = ["squash", "center_crop", "pad"]


class Pixels(nn.Module):
    """A network whose logits are the pixels that it sees, times a gain."""

    def __init__(self, gain: float = 1) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x.flatten(1)


def run_of(network: nn.Module) -> DistillationRun:
    """A run whose student takes color images of 16x16 pixels."""
    config = load_config("kd", ["data.train_size=40", "training.batch_size=10"])
    return DistillationRun(config, colored(), network, "strangers")


def by_pillow(image: Image.Image, kind: Resize) -> np.ndarray:
    """The image as Pillow cuts, pads and resizes it, (C,H,W)."""
    (width, height), short, long = image.size, min(image.size), max(image.size)
    if kind == "center_crop":
        left, top = (width - short) // 2, (height - short) // 2
        image = image.crop((left, top, left + short, top + short))
    if kind == "pad":
        square = Image.new("RGB", (long, long))
        square.paste(image, ((long - width) // 2, (long - height) // 2))
        image = square
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1).astype(float)


@pytest.mark.parametrize("kind", RESIZES)
def test_files_see_images_of_any_size_within_one_gray_level_of_pillow(
    kind: Resize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student_file, "resize_kind", lambda config: kind)
    network_files.write_networks(run_of(Pixels()), tmp_path, ("pt2", "onnx"))
    generator = np.random.default_rng(0)
    for file in (open_onnx(tmp_path / "student.onnx"), open_pt2(tmp_path / "student.pt2")):
        for size in BOTH_WAYS:
            pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            seen = 255 * file.answer(pixels[None])[0].reshape(3, SIDE, SIDE)
            assert np.abs(seen - by_pillow(Image.fromarray(pixels), kind)).max() < 1.001, (file.path.name, size)


@pytest.mark.parametrize(("size", "shown"), [((3, 5), (6, 10)), ((5, 3), (6, 4)), ((1, 2), (6, 12)), ((1, 3), (4, 12))])
def test_a_padded_image_keeps_its_aspect_ratio_in_a_network_of_another(size: tuple[int, int], shown: object) -> None:
    white = torch.full((1, *(100 * side for side in size), 3), 255, dtype=torch.uint8)
    seen = DeployableClassifier(Pixels(), (3, 6, 12), "pad")(white)[0].reshape(3, 6, 12)[0]
    assert (int((seen.amax(1) > 0.4).sum()), int((seen.amax(0) > 0.4).sum())) == shown


def test_a_file_that_resizes_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = network_files._program
    monkeypatch.setattr(
        network_files, "_program", lambda s, run: trace(DeployableClassifier(s.network, run.shape, "pad"), run)
    )
    with pytest.raises(ExportError, match=r"student\.pt2: differs from the student by 0\..* of a resized image"):
        network_files.write_networks(run_of(Pixels(gain=50)), tmp_path, ("pt2",))
