"""Measures the delivery of a batch: gathering its images, augmentation, and conversion to float.

    python -m tests.benchmarks.batch_delivery            (2 minutes on one core)

For each operation, the first table shows images per second per core, for images of 32x32 and of 224x224 pixels. The
last line shows two times for a batch of 224x224 images: its delivery, including random resized crops and flips, and a
training step of mobilenet_v3_small on it. Times are CPU times of one thread. Each time is the shortest of several
rounds, so that other processes on the machine have little influence.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models import mobilenet_v3_small

from ensdistill.data import StandardAugmentation
from ensdistill.data.splits import to_unit

OPERATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "pad 4": {"pad": 4},
    "random resized crop": {"crop_scale": 0.08},
    "flip": {"flip": True},
    "color jitter": {"color_jitter": 0.4},
    "RandAugment, 2 operations": {"rand_augment": 2},
    "random erasing": {"erasing": 0.25},
    "cutout": {"cutout": 8},
    "random resized crop and flip": {"crop_scale": 0.08, "flip": True},
}
BATCHES = {32: 128, 224: 32}  # batch size by image size


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Returns the CPU seconds of one call, the minimum over all rounds."""
    work()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def delivery(side: int, settings: dict[str, Any]) -> Callable[[], Tensor]:
    """Returns a function that assembles one batch from 500 stored images."""
    generator = torch.Generator().manual_seed(0)
    stored = torch.randint(256, (500, 3, side, side), dtype=torch.uint8, generator=generator)
    augmentation = StandardAugmentation(**settings)

    def batch() -> Tensor:
        chosen = torch.randint(500, (BATCHES[side],), generator=generator)
        return to_unit(augmentation(stored[chosen], generator))

    return batch


def training_step() -> Callable[[], None]:
    """Returns a training step of mobilenet_v3_small with SGD on a batch of 224x224 images, channels last."""
    network = mobilenet_v3_small(num_classes=10).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(BATCHES[224], 3, 224, 224).to(memory_format=torch.channels_last)
    labels = torch.arange(BATCHES[224]) % 10

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    print("| operation | 32 px, images/s | 224 px, images/s |\n|---|---|---|")
    for name, settings in OPERATIONS.items():
        speeds = [BATCHES[side] / seconds(delivery(side, settings), options.rounds) for side in BATCHES]
        figures[name] = speeds
        print(f"| {name} | " + " | ".join(f"{speed:,.0f}" for speed in speeds) + " |", flush=True)
    made = seconds(delivery(224, OPERATIONS["random resized crop and flip"]), options.rounds)
    step = seconds(training_step(), options.rounds)
    figures["delivery / step"] = made / step
    print(f"\ndelivery {1000 * made:.0f} ms, step {1000 * step:.0f} ms, ratio {made / step:.3f} (target: at most 0.15)")
    if options.json:
        options.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
