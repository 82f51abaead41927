"""Speed on a GPU: steps compared with plain implementations of the published procedures, and image input."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from ensdistill import Distiller, TeacherEnsemble, load_config, load_data
from ensdistill.data import DataSplits, shared_images, store
from tests.benchmarks.gpu.rows import BusyWatch, Note, Row, Sizes, in_turns, random_splits, synchronize
from tests.benchmarks.step_speed import System, Work

SYSTEMS = ("latentbe", "aekd", "kd")
INPUT_EPOCHS = 11
SMALL = "model={kind: convnet, width: 2}"


def run(sizes: Sizes, note: Note) -> None:
    """Measures steps of all systems and networks, then the input."""
    for net, overrides in sizes.nets.items():
        for system in SYSTEMS[:1] if sizes.dry else SYSTEMS:
            note(step_row(sizes, net, system, overrides))
    for row in input_rows(sizes):
        note(row)


def step_row(sizes: Sizes, net: str, system: str, overrides: tuple[str, ...]) -> Row:
    """Measures one step in bfloat16: the published procedure with autocast, and the step of this project."""
    device = torch.device(sizes.device)
    plain = System(system, torch.float32, sizes.batch, *overrides, device=device).published()
    ours = System(system, torch.float32, sizes.batch, *overrides, device=device).ours("bfloat16")

    def published() -> None:
        with torch.autocast(sizes.device, torch.bfloat16):
            plain()

    theirs, mine = in_turns([published, ours], sizes.rounds, sizes.device)
    with BusyWatch() as busy:
        _repeat(ours, mine, sizes)
    figures = {"published_s": theirs, "ours_s": mine, "images_per_s": sizes.batch / mine, "busy_percent": busy.percent}
    words = f"{theirs / mine:.2f} times as fast as published; {1000 * mine:.1f} ms, {sizes.batch / mine:,.0f} images/s"
    return Row("steps", f"{system}, {net}, batch {sizes.batch}", words + busy.in_words(), figures=figures)


def _repeat(work: Work, seconds: float, sizes: Sizes) -> None:
    """Runs steps without synchronization, long enough for the samples of nvidia-smi."""
    for _ in range(1 if sizes.dry else max(10, int(2 / seconds))):
        work()
    synchronize(sizes.device)


def input_rows(sizes: Sizes) -> Iterator[Row]:
    """Measures complete epochs with images in device memory, and with prefetched photographs."""
    small = random_splits(10 * sizes.images if not sizes.dry else sizes.images).to(sizes.device)
    rate, busy = epochs_of(sizes, small, SMALL if sizes.dry else "model.kind=convnet")
    yield Row("input", "32 px, in memory: images/s of an epoch", f"{rate:,.0f}{busy}", figures={"images_per_s": rate})
    net = SMALL if sizes.dry else "model={kind: torchvision, name: resnet18}"
    with tempfile.TemporaryDirectory() as folder:
        rates = {}
        for name, share in (("in memory", 4), ("read ahead from the disk", 10**9)):
            with patch.object(shared_images, "GPU_SHARE", share), patch.object(store, "IN_MEMORY", 0):
                rates[name], busy = epochs_of(sizes, photographs(Path(folder), sizes), net)
            words = f"{rates[name]:,.0f}{busy}"
            figures = {"images_per_s": rates[name]}
            yield Row("input", f"{sizes.side} px, {name}: images/s of an epoch", words, figures=figures)
    ratio = rates["read ahead from the disk"] / rates["in memory"]
    yield Row("input", f"{sizes.side} px: read ahead / in memory", f"{ratio:.2f}", figures={"ratio": ratio})


def epochs_of(sizes: Sizes, data: DataSplits, net: str) -> tuple[float, str]:
    """Returns training images per second in complete epochs after the first, and the GPU utilization."""
    epochs = 2 if sizes.dry else INPUT_EPOCHS
    size = ["training.precision=bfloat16"] if not sizes.dry else []
    augmentation = "training.augmentation={pad: 4, flip: true}"
    changes = [f"training.epochs={epochs}", f"training.batch_size={min(64, sizes.batch)}", augmentation, net, *size]
    config = load_config("labels", [*changes, "training.unlabeled_batch_size=0"])
    run = Distiller(config, TeacherEnsemble([], len(data.class_names), "none"), data)
    next(run)
    with BusyWatch() as busy:
        seconds = [epoch.seconds for epoch in run]
    return len(data.train) * len(seconds) / sum(seconds), busy.in_words()


def photographs(home: Path, sizes: Sizes) -> DataSplits:
    """Returns JPEG files as loaded by the package: decoded once into a file that trainings read."""
    folder, noise = home / "photos", np.random.default_rng(0)
    for n in range(sizes.photos):
        file = folder / f"class{n % 10}" / f"{n:04d}.jpg"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            coarse.resize((sizes.side + 32, sizes.side + 32)).save(file, quality=90)
    kept = f"data={{kind: image_folder, path: '{folder}', size: {sizes.side}, val_size: 20, test_size: 20}}"
    with contextlib.redirect_stderr(None):
        return load_data(load_config("labels", [kept]).data, home).to(sizes.device)
