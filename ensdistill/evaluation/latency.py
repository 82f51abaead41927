"""Inference cost of networks: weight size, number of operations, and latency."""

import hashlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from ensdistill.data import Shape
from ensdistill.evaluation.evaluator import model_complexity
from ensdistill.evaluation.inference_cost import BATCHES, InferenceCost
from ensdistill.models.fusion import inference_form
from ensdistill.runtime.modes import evaluating
from ensdistill.runtime.randomness import deterministic

PHOTO = (375, 500)  # height and width of the image in `resizing_price`
WITH_RESIZE = f"student, {PHOTO[1]}x{PHOTO[0]} image"  # table row for a student that resizes images of size PHOTO
LEAST, MOST, SECONDS = 5, 50, 3.0  # runs per network: at least LEAST, at most MOST, for about SECONDS in total


def prices(networks: Mapping[str, nn.Module], shape: Shape, device: torch.device) -> dict[str, InferenceCost]:
    """Returns the inference cost of each network in its inference form; times are measured on one thread.

    Args:
        networks: The networks, keyed by name.
        shape: Channels, height and width of an image.
        device: Device on which times are measured.
    """
    networks = {name: inference_form(network) for name, network in networks.items()}
    with deterministic(threads=1), torch.no_grad():
        times = {batch: _milliseconds(networks, torch.rand(batch, *shape).to(device)) for batch in BATCHES}
    return {
        name: InferenceCost(
            _bytes(network), **model_complexity(network, shape), milliseconds={b: times[b][name] for b in BATCHES}
        )
        for name, network in networks.items()
    }


def resizing_price(bare: InferenceCost, classifier: nn.Module, channels: int, device: torch.device) -> InferenceCost:
    """Returns the cost of a network with preprocessing; its time is measured on one uint8 image of size PHOTO.

    Args:
        bare: Cost of the network alone; the size and the number of operations are copied, because the resize is not
            counted.
        classifier: uint8 images (N,H,W,C) of any size -> any outputs.
        channels: Number of channels of an image.
        device: Device on which times are measured.
    """
    times = _photo_times(classifier, channels, device)
    return replace(bare, milliseconds={1: 1000 * median(times)})


def latency_ms(network: nn.Module, shape: Shape, device: torch.device) -> float:
    """Returns the time in milliseconds for one image on one thread, with the network in its inference form.

    The result is the shortest time of up to 50 runs, because the fastest run is the least affected by other processes.

    Args:
        network: Images (B,C,H,W) in [0,1] -> logits (B,classes).
        shape: Channels, height and width of an image.
        device: Device on which the time is measured.
    """
    network = inference_form(network).to(device)
    with deterministic(threads=1), torch.no_grad():
        return 1000 * min(_run_times({"": network}, torch.full((1, *shape), 0.5, device=device))[""])


def photo_latency_ms(classifier: nn.Module, channels: int, device: torch.device) -> float:
    """Returns the time in milliseconds for one uint8 image of size PHOTO, including the resize in the classifier.

    As in `latency_ms`, the result is the time of the fastest run on one thread.

    Args:
        classifier: uint8 images (N,H,W,C) of any size -> any outputs.
        channels: Number of channels of an image.
        device: Device on which the time is measured.
    """
    return 1000 * min(_photo_times(classifier, channels, device))


def architecture_of(network: nn.Module) -> str:
    """Returns a hash of a network's layers and tensor shapes, independent of tensor values."""
    network = inference_form(network)
    shapes = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    return hashlib.sha256(f"{network}{shapes}".encode()).hexdigest()[:16]


def machine_name(device: torch.device) -> str:
    """Returns the model name of the GPU, or the model name of the CPU and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, platform.processor() or platform.machine())}, 1 thread"


def _photo_times(classifier: nn.Module, channels: int, device: torch.device) -> list[float]:
    """Returns the time of each run of a classifier on one uint8 image of size PHOTO, in seconds."""
    images = torch.full((1, *PHOTO, channels), 128, dtype=torch.uint8, device=device)
    with deterministic(threads=1), torch.no_grad():
        return _run_times({"": classifier.to(device)}, images)[""]


def _milliseconds(networks: Mapping[str, nn.Module], images: Tensor) -> dict[str, float]:
    """Returns the median time of each network for one batch, in milliseconds."""
    return {name: 1000 * median(taken) for name, taken in _run_times(networks, images).items()}


def _run_times(networks: Mapping[str, nn.Module], images: Tensor) -> dict[str, list[float]]:
    """Returns the seconds per run for each network; runs alternate, so that other load slows all networks equally."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    begun = time.perf_counter()
    for turn in range(MOST + 1):
        if turn > LEAST and time.perf_counter() - begun > SECONDS:
            break
        for name, network in networks.items():
            times[name].append(_seconds(network, images))
    return {name: taken[1:] for name, taken in times.items()}  # the first round is a warm-up


def _seconds(network: nn.Module, images: Tensor) -> float:
    """Returns the time of one forward pass in seconds."""
    wait: Callable[[], None] = torch.cuda.synchronize if images.is_cuda else lambda: None
    with evaluating(network):
        wait()
        begun = time.perf_counter()
        network(images)
        wait()
        return time.perf_counter() - begun


def _bytes(network: nn.Module) -> int:
    """Returns the size of all weights and buffers in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
